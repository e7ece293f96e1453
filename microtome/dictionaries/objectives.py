"""What a dictionary is trained to make small: terms that add and scale.

Reconstruction() + AuxK()
Reconstruction() + 0.01 * Sparsity()
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.codes import Codes, TopCodes
from microtome.core.component import Dictionary
from microtome.dictionaries.sae import SAE


class Attempt:
    """One batch and what a dictionary makes of it, worked out once for all terms."""

    def __init__(self, dictionary: Dictionary, x: Float[Tensor, "rows d"]):
        self.dictionary, self.x = dictionary, x

    @cached_property
    def codes(self) -> Codes:
        return self.dictionary.encode(self.x)

    @cached_property
    def error(self) -> Float[Tensor, "rows d"]:
        """What the dictionary leaves unexplained: x - x̂."""
        return self.x - self.dictionary.decode(self.codes)

    @cached_property
    def variance(self) -> Float[Tensor, ""]:
        """Summed squared distance of the batch from its mean."""
        return (self.x - self.x.mean(0)).pow(2).sum()


class Objective(nn.Module, ABC):
    """A sum of named terms. Call it with a dictionary and a batch."""

    @abstractmethod
    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        """The terms, by name; their sum is the loss."""

    def forward(self, learned: Dictionary, batch: Float[Tensor, "rows d"]) -> Mapping[str, Float[Tensor, ""]]:
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
    """The fraction of the batch's variance left unexplained: sum |x - x̂|² / sum |x - mean|²."""

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        return {"unexplained": attempt.error.pow(2).sum() / attempt.variance}


class Sparsity(Objective):
    """The mean summed activity, each component weighted by the length of what it writes (L1)."""

    def terms(self, attempt: Attempt) -> dict[str, Float[Tensor, ""]]:
        lengths = attempt.dictionary.directions().write[:, 0].norm(dim=1)
        entries = attempt.codes.entries()
        return {"sparsity": (entries.values.abs() * lengths[entries.components]).sum() / attempt.codes.shape.numel()}


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
        spread = (error - error.mean(0)).pow(2).sum()
        return {"auxk": (self.weight * missed.pow(2).sum() / spread).nan_to_num(0.0)}

    @torch.no_grad()
    def _count(self, codes: Codes) -> None:
        self.silent += codes.shape.numel()
        self.silent[codes.entries().components] = 0

    def _explained_by(self, dead: Tensor, attempt: Attempt) -> Float[Tensor, "rows d"]:
        sae = cast(SAE, attempt.dictionary)
        x = sae.normalisation(attempt.x)
        pre = torch.relu((x - sae.b_dec) @ sae.W_enc[dead].T + sae.b_enc[dead])
        best = pre.topk(min(self.k_aux or x.shape[1] // 2, len(dead)), 1, sorted=False)
        codes = TopCodes(best.values, best.indices, len(dead))
        return codes.dense() @ sae.W_dec[dead] * sae.normalisation.scale
