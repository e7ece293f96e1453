"""Matches are those of going through all pairs from the most alike to the least."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.matching import mutual, nearest, paired, refuse_other_space


def unit(n: int, d: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(n, d, generator=generator), dim=1)


def test_mutual_and_greedy_pairs_are_those_of_going_through_all_pairs(generator: torch.Generator) -> None:
    first, second = unit(7, 5, generator), unit(11, 5, generator)
    cosines = first @ second.T
    wanted, used = {}, set()
    for place in cosines.flatten().argsort(descending=True).tolist():
        i, j = divmod(place, 11)
        if i not in wanted and j not in used:
            wanted[i] = j
            used.add(j)
    found = paired(first, second)
    assert dict(zip(found.first.tolist(), found.second.tolist(), strict=True)) == wanted
    torch.testing.assert_close(found.cosines, cosines[found.first, found.second])
    nearest = [(i, j) for i, j in wanted.items() if cosines[i].argmax() == j and cosines[:, j].argmax() == i]
    agreed = mutual(first, second)
    assert sorted(zip(agreed.first.tolist(), agreed.second.tolist(), strict=True)) == sorted(nearest)


def test_the_nearest_is_that_of_all_cosines(generator: torch.Generator) -> None:
    first, second = unit(7, 5, generator), unit(11, 5, generator)
    found = nearest(first, second)
    torch.testing.assert_close(found.cosines, (first @ second.T).amax(1))
    assert found.latents.equal((first @ second.T).argmax(1))


def test_vectors_of_other_lengths_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="5 numbers and the other 6"):
        refuse_other_space(unit(3, 5, generator), unit(3, 6, generator))
