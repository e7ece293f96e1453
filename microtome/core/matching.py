"""Which unit of one set is which of another, by the cosine of the vectors that stand for them.

The vectors are of length 1: directions of components, or what units did on the same inputs, centred (then a cosine is a
correlation).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.errors import Refusal

BLOCK = 4096  # vectors of one set compared at a time


class Matches(NamedTuple):
    """Pairs of units, one of each set, and the cosine of their vectors."""

    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]
    cosines: Float[Tensor, "pairs"]


class Nearest(NamedTuple):
    """For each unit the one of the other set that is most alike."""

    latents: Int[Tensor, "latents"]
    cosines: Float[Tensor, "latents"]


def nearest(of: Float[Tensor, "latents d"], among: Float[Tensor, "others d"]) -> Nearest:
    """The nearest by cosine of vectors of length 1; never all cosines at once."""
    found = [(block @ among.T).max(1) for block in of.split(BLOCK)]
    return Nearest(torch.cat([each.indices for each in found]), torch.cat([each.values for each in found]))


def mutual(first: Float[Tensor, "latents d"], second: Float[Tensor, "others d"]) -> Matches:
    """The pairs that are each other's nearest. No unit is in two of them."""
    refuse_other_space(first, second)
    forth, back = nearest(first, second), nearest(second, first)
    agreed = (back.latents[forth.latents] == torch.arange(len(first), device=first.device)).nonzero()[:, 0]
    return Matches(agreed, forth.latents[agreed], forth.cosines[agreed])


def paired(first: Float[Tensor, "latents d"], second: Float[Tensor, "others d"]) -> Matches:
    """Every unit of the smaller set with one of the other, no one twice: the best pair first, then the next.

    Mutual nearest are paired and taken out, until none is left, which gives what going through all pairs from the best
    to the worst would.
    """
    left, right = torch.arange(len(first), device=first.device), torch.arange(len(second), device=second.device)
    found: list[Matches] = []
    while len(left) and len(right):
        here = mutual(first[left], second[right])
        found.append(Matches(left[here.first], right[here.second], here.cosines))
        left, right = without(left, here.first), without(right, here.second)
    return Matches(*(torch.cat(column) for column in zip(*found, strict=True)))


def without(numbers: Int[Tensor, "some"], places: Int[Tensor, "_"]) -> Int[Tensor, "_"]:
    """The numbers that do not stand at these places."""
    kept = torch.ones(len(numbers), dtype=torch.bool, device=numbers.device)
    kept[places] = False
    return numbers[kept]


def refuse_other_space(first: Tensor, second: Tensor) -> None:
    """Raises Refusal for vectors of two lengths, which have no cosine."""
    if first.shape[1] != second.shape[1]:
        raise Refusal(
            f"the one dictionary writes {first.shape[1]} numbers and the other {second.shape[1]}; "
            "compare dictionaries that write at the same sites, and units on the same inputs"
        )
