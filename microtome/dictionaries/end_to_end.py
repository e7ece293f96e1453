"""Dictionaries judged by what the network does with them: the loss is taken after the rest of the forward pass.

Braun et al. 2024, Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning
(arXiv 2405.12241).
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.edit import splice
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, token_losses
from microtome.core.model import Model
from microtome.core.rows import Rows
from microtome.core.trace import Trace
from microtome.dictionaries.objectives import Attempt, Objective


class EndToEnd(Objective):
    """Batches are `Tokens`. The dictionary stands in for its site from position 1 on, and the model is run to its end.

    `beside` is an objective on the activations themselves, such as a penalty, or a share of `Reconstruction`. The
    model's own weights do not learn.
    """

    def __init__(self, model: Model, beside: Objective | None = None):
        super().__init__()
        self.model, self.beside = model, beside

    @abstractmethod
    def after(self, spliced: Trace, clean: Trace) -> Float[Tensor, ""]:
        """The loss at the logits, in nats per token."""

    def forward(self, learned: Dictionary, batch: Any) -> Mapping[str, Float[Tensor, ""]]:
        sites = [*learned.reads, *learned.writes]
        with torch.no_grad():
            clean = self.model.run(batch, read=[*dict.fromkeys(sites), LOGITS])
        spliced = self.model.run(batch, read=[LOGITS], edit=[splice(learned).at(pos=slice(1, None))])
        found = {"after": self.after(spliced, clean)}
        if self.beside is None:
            return found
        kept = batch.mask[:, 1:]
        rows = Rows({site.name: clean[site][:, 1:][kept] for site in sites})
        return found | self.beside.terms(Attempt(learned, rows))

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        raise TypeError("an end-to-end loss needs tokens; put it outermost and the other terms beside it")


class SplicedKL(EndToEnd):
    """How far the next-token distribution moves: KL(clean, spliced), the mean over real tokens."""

    def after(self, spliced: Trace, clean: Trace) -> Float[Tensor, ""]:
        said, meant = (trace["logits"].log_softmax(-1) for trace in (spliced, clean))
        each = (meant.exp() * (meant - said)).sum(-1)
        return each[real(clean)].mean()


class SplicedCrossEntropy(EndToEnd):
    """How well the next token is predicted with the dictionary in place."""

    def after(self, spliced: Trace, clean: Trace) -> Float[Tensor, ""]:
        losses, kept = token_losses(spliced)
        return losses[kept].mean()


def real(trace: Trace) -> Tensor:
    """Which places hold a token, position 0 left out: nothing is spliced there."""
    mask = trace.inputs.mask.clone() if isinstance(trace.inputs, Tokens) else torch.ones(len(trace.inputs), 1)
    mask[:, 0] = False
    return mask.bool()
