"""What a dictionary is trained to make small: terms that add and scale.

Reconstruction() + AuxK(width)
Reconstruction() + 0.01 * Sparsity()
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.codes import Codes, DenseCodes
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.rows import Rows
from microtome.dictionaries.coder import Coder, Reading


class Attempt:
    """One batch and what a dictionary makes of it, worked out once for all terms.

    A tensor of rows is input and target both; `Rows` hold what stands at every site that is read or written.
    """

    def __init__(self, dictionary: Dictionary, batch: Sized):
        """Raises Refusal for text: what is learned from the model's later activations is `EndToEnd`."""
        if not isinstance(batch, Tensor | Rows):
            raise Refusal(
                f"this objective learns from activations, and the batch is {type(batch).__name__}; harvest first"
            )
        self.dictionary = dictionary
        self.x = dictionary.gather(batch) if isinstance(batch, Rows) else batch
        self.target = dictionary.target(batch) if isinstance(batch, Rows) else batch

    @property
    def coder(self) -> Coder:
        """The dictionary, where a term needs more of it than codes: its pre-activations, its decoder."""
        if not isinstance(self.dictionary, Coder):
            raise Refusal(f"{type(self.dictionary).__name__} has no encoder that learns; this term needs one")
        return self.dictionary

    @cached_property
    def readings(self) -> list[Reading]:
        """The pre-activations of the batch, with the activation of each."""
        return self.coder.readings(self.x)

    @cached_property
    def selected(self) -> Codes:
        """The codes in the units in which the dictionary selects."""
        return self.coder.codes_of(self.readings)

    @cached_property
    def codes(self) -> Codes:
        """The codes as they are decoded."""
        if isinstance(self.dictionary, Coder):
            return self.dictionary.resized(self.selected, self.x)
        return self.dictionary.encode(self.x)

    @cached_property
    def past(self) -> Float[Tensor, "..."]:
        """What reaches the written site past the codes."""
        return self.dictionary.bypass(self.x)

    @cached_property
    def error(self) -> Float[Tensor, "*site rows d"]:
        """What the dictionary leaves unexplained: target - x̂."""
        return self.target - self.dictionary.decode(self.codes) - self.past

    @cached_property
    def variance(self) -> Float[Tensor, ""]:
        """Summed squared distance of the target from its mean."""
        return (self.target - self.target.mean(-2, keepdim=True)).pow(2).sum()


class Objective(nn.Module, ABC):
    """A sum of named terms. Call it with a dictionary and a batch."""

    @abstractmethod
    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        """The terms, by name; their sum is the loss."""

    def forward(self, learned: Dictionary, batch: Sized) -> Mapping[str, Float[Tensor, ""]]:
        return self.terms(Attempt(learned, batch))

    def __add__(self, other: "Objective") -> "Objective":
        return Sum(self, other)

    def __rmul__(self, by: float) -> "Objective":
        return Scaled(self, by)


class Sum(Objective):
    """The terms of several objectives; those of one name are added up."""

    def __init__(self, *parts: Objective):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        total: dict[str, Float[Tensor, ""]] = {}
        for part in self.parts:
            for name, term in cast(Objective, part).terms(attempt).items():
                total[name] = total[name] + term if name in total else term
        return total


class Scaled(Objective):
    """An objective times a number."""

    def __init__(self, part: Objective, by: float):
        super().__init__()
        self.part, self.by = part, by

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        return {name: self.by * term for name, term in self.part.terms(attempt).items()}


class Reconstruction(Objective):
    """The fraction of the target's variance left unexplained: sum |x - x̂|² / sum |x - mean|², over all sites."""

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        return {"unexplained": attempt.error.pow(2).sum() / attempt.variance}


class AuxK(Objective):
    """Dead latents, revived by having them explain what the living leave unexplained.

    Gao et al. 2024 (arXiv 2406.04093), appendix A.2: the k_aux largest pre-activations among latents that have not
    fired for `dead_after` tokens reconstruct the error; the loss is the fraction of its variance they miss, times 1/32.
    The dead decoder rows stand alone there: no bias is added.
    """

    silent: Tensor  # tokens since each latent last fired

    def __init__(self, width: int, dead_after: int = 10_000_000, k_aux: int | None = None, weight: float = 1 / 32):
        super().__init__()
        self.dead_after, self.k_aux, self.weight = dead_after, k_aux, weight
        self.register_buffer("silent", torch.zeros(width, dtype=torch.long))

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        self._count(attempt.codes)
        dead = (self.silent > self.dead_after).nonzero()[:, 0]
        if not len(dead):
            return {"auxk": attempt.x.new_zeros(())}
        error = attempt.error.detach()
        missed = error - self._explained_by(dead, attempt)
        spread = (error - error.mean(-2, keepdim=True)).pow(2).sum()
        return {"auxk": (self.weight * missed.pow(2).sum() / spread).nan_to_num(0.0)}

    @torch.no_grad()
    def _count(self, codes: Codes) -> None:
        self.silent += codes.shape.numel()
        self.silent[codes.entries().components] = 0

    def _explained_by(self, dead: Int[Tensor, "dead"], attempt: Attempt) -> Float[Tensor, "*site rows d"]:
        pre = torch.relu(pre_of(attempt.readings, dead))
        best = pre.topk(min(self.k_aux or attempt.x.shape[-1] // 2, len(dead)), -1, sorted=False)
        codes = DenseCodes(torch.zeros_like(pre).scatter(-1, best.indices, best.values))
        return attempt.coder.writing_of(dead, attempt.coder.resized(codes, attempt.x))


def pre_of(readings: Sequence[Reading], which: Int[Tensor, "some"]) -> Float[Tensor, "... some"]:
    """The pre-activations of some components, in the order of their numbers, without making the others."""
    found, start = [], 0
    for pre, _ in readings:
        mine = which[(which >= start) & (which < start + len(pre.bias))] - start
        found.append(pre.x @ pre.weight[mine].T + pre.bias[mine])
        start += len(pre.bias)
    return torch.cat(found, -1)
