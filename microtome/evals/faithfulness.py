"""What the network still does with a dictionary in its place: cross-entropy, divergence and accuracy, by document.

The reconstruction is spliced in everywhere but at position 0, its error dropped. Its scale is the network on one end
and, on the other, the network with the mean of the site in place of every token.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.component import Dictionary
from microtome.core.edit import Edit, fill, splice, written_site
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS
from microtome.core.model import Model
from microtome.evals.interval import Score, by_document

TOKENS, LOSS, DIVERGENCE, RIGHT, AGREE = range(5)
CLEAN, ABLATED, SPLICED = range(3)
WINDOWS = 8  # run at once


class Faithfulness:
    """Sums over windows for the network as it is, mean-ablated, and with each of some dictionaries in its place.

    All dictionaries write at one site. For each window and way: predicted tokens, their cross-entropy (nats), KL from
    the untouched network (nats), right guesses, guesses that are those of the untouched network.
    """

    def __init__(self, dictionaries: Sequence[Dictionary], mean: Float[Tensor, "d"]):
        site = written_site(dictionaries[0])
        after = {"pos": slice(1, None)}
        self.edits: list[list[Edit]] = [
            [fill(site, mean).at(**after)],
            *([splice(d).at(**after)] for d in dictionaries),
        ]

    @torch.no_grad()
    def measuring(
        self, model: Model, tokens: Int[Tensor, "windows context"], *, batch: int = WINDOWS
    ) -> Iterator[Float[Tensor, "batch ways sums"]]:
        """The sums of one batch of windows after another."""
        for ids in tokens.split(batch):
            logits = clean(model, ids)
            ways = [compared(logits, logits, ids)]
            ways += [compared(clean(model, ids, edit), logits, ids) for edit in self.edits]
            yield torch.stack(ways, 1).cpu()


def clean(model: Model, ids: Int[Tensor, "windows context"], edit: Sequence[Edit] = ()) -> Tensor:
    """Log probabilities of every next token but the first, whose position is not edited."""
    trace = model.run(Tokens.of(ids), read=[LOGITS], edit=edit)
    return cast(Tensor, trace[LOGITS])[:, 1:-1].float().log_softmax(-1)


def compared(
    now: Float[Tensor, "windows next vocab"], was: Float[Tensor, "windows next vocab"], ids: Tensor
) -> Float[Tensor, "windows sums"]:
    """The five sums of each window."""
    wanted = ids[:, 2:].to(now.device)
    loss = F.nll_loss(now.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
    divergence = F.kl_div(now, was, reduction="none", log_target=True).sum(-1)
    guess = now.argmax(-1)
    each = (torch.ones_like(loss), loss, divergence, guess == wanted, guess == was.argmax(-1))
    return torch.stack([x.double().sum(1) for x in each], 1)


def by_way(
    found: Sequence[Float[Tensor, "_ ways _"]], way: int, document: Int[Tensor, "windows"], documents: int
) -> Float[Tensor, "documents ways_sums"]:
    """Document by document, the sums of the clean network, the ablated one and one dictionary, one after another."""
    windows = torch.cat(list(found))
    chosen = windows[:, [CLEAN, ABLATED, SPLICED + way]].flatten(1)
    return by_document(chosen, document[: len(chosen)], documents)


def share(which: int) -> Score:
    """How far a sum of the spliced network stands on the way from the ablated one (0) to the clean one (1)."""

    def score(sums: Float[Tensor, "... ways_sums"]) -> Float[Tensor, "..."]:
        ways = sums.unflatten(-1, (3, -1))[..., which]
        return (ways[..., ABLATED] - ways[..., SPLICED]) / (ways[..., ABLATED] - ways[..., CLEAN])

    return score


def mean(which: int, way: int = SPLICED) -> Score:
    """A sum, per predicted token."""

    def score(sums: Float[Tensor, "... ways_sums"]) -> Float[Tensor, "..."]:
        ways = sums.unflatten(-1, (3, -1))
        return ways[..., way, which] / ways[..., way, TOKENS]

    return score
