"""Planted copies, splits and absorption are found, and nothing is found where nothing is shared."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.sae import SAE
from microtome.dictionaries.stability import (
    absorbed,
    cofiring,
    firing,
    rotation,
    shared,
    splits,
    subsets,
    written,
)

X = Site("x")


def writing(directions: Tensor) -> Linear:
    """Components with these directions."""
    return Linear(X, X, directions, directions.clone(), torch.zeros(directions.shape[1]))


def reading(read: Tensor, write: Tensor, bias: Tensor) -> SAE:
    """An autoencoder with these weights."""
    made = SAE(X, read.shape[1], len(read), ReLU())
    with torch.no_grad():
        made.W_enc.copy_(read)
        made.W_dec.copy_(write)
        made.b_enc.copy_(bias)
    return made


def unit(n: int, d: int, generator: torch.Generator) -> Tensor:
    return normalize(torch.randn(n, d, generator=generator), dim=1)


def test_a_shuffled_copy_is_wholly_shared_and_matched_as_it_was_shuffled(generator: torch.Generator) -> None:
    directions, order = unit(40, 16, generator), torch.randperm(40, generator=generator)
    found = shared(writing(directions), writing(directions[order]), generator=generator)
    assert found.fraction == 1 and found.cosine == pytest.approx(1)
    assert torch.equal(order[found.matches.second], found.matches.first)


def test_half_a_copy_is_half_shared_and_strangers_share_what_chance_does(generator: torch.Generator) -> None:
    directions = unit(40, 64, generator)
    half = torch.cat([directions[:20], unit(20, 64, generator)])
    found = shared(writing(directions), writing(half), generator=generator)
    assert found.fraction == 0.5 and found.chance == 0
    assert found.matches.first.tolist() == found.matches.second.tolist() == list(range(20))
    strangers = shared(writing(directions), writing(unit(40, 64, generator)), generator=generator)
    assert strangers.fraction == 0 and strangers.cosine == pytest.approx(strangers.cosine_by_chance, abs=0.05)


def test_chance_knows_that_activations_lie_in_few_directions(generator: torch.Generator) -> None:
    """In a plane everything is near something: two unrelated dictionaries agree, and so does chance."""
    plane = torch.zeros(2, 50)
    plane[0, 0] = plane[1, 1] = 1.0
    one, other = (writing(unit(30, 2, generator) @ plane) for _ in range(2))
    found = shared(one, other, generator=generator)
    assert found.cosine > 0.95 and found.cosine_by_chance > 0.95 and found.chance > 0.3


def test_only_the_living_count_where_they_are_named(generator: torch.Generator) -> None:
    directions = unit(10, 16, generator)
    other = directions.clone()
    other[5:] = unit(5, 16, generator)
    live = torch.tensor([0, 2, 4]), torch.tensor([0, 2, 4, 9])
    found = shared(writing(directions), writing(other), generator=generator, live=live)
    assert found.fraction == 1 and found.matches.first.tolist() == found.matches.second.tolist() == [0, 2, 4]


def test_a_planted_split_is_found(generator: torch.Generator) -> None:
    """Latent 0 becomes three, 1 stays, 2 is lost, and one is new."""
    small = torch.eye(8)[:3]
    third, fifth = torch.eye(8)[4], torch.eye(8)[5]
    children = [small[0] + 0.5 * third, small[0] - 0.5 * third, small[0] + 0.2 * fifth]
    large = torch.stack([*children, small[1], torch.eye(8)[7]])
    found = splits(writing(small), writing(large))
    assert found.parts == [[2, *found.parts[0][1:]], [3], []] and set(found.parts[0]) == {0, 1, 2}
    assert found.split == [0] and found.lost == [2] and found.novel == [4]


def test_counts_of_firing_are_those_of_dense_codes(generator: torch.Generator) -> None:
    x = torch.randn(100, 6, generator=generator)
    one, other = (SAE(X, 6, width, ReLU(), generator=generator) for width in (5, 9))
    dense = [(d.encode(x).dense() > 0).long() for d in (one, other)]
    found = cofiring(firing(one, x, batch=32), firing(other, x))
    both = torch.zeros(5, 9, dtype=torch.long)
    both[found.first, found.second] = found.both
    assert torch.equal(both, dense[0].T @ dense[1])
    assert torch.equal(found.alone_first, dense[0].sum(0)) and torch.equal(found.alone_second, dense[1].sum(0))


def test_what_fires_within_another_is_a_subset_of_it(generator: torch.Generator) -> None:
    """Latent 1 reads the same axis as latent 0 with a higher bar; latent 2 another axis; 3 is 0 again."""
    x = torch.randn(2000, 4, generator=generator)
    read = torch.eye(4)[[0, 0, 1, 0]]
    found = subsets(firing(reading(read, read, torch.tensor([0.0, -1.0, 0.0, -0.01])), x))
    assert set(zip(found.part.tolist(), found.whole.tolist(), strict=True)) == {(1, 0), (1, 3)}
    assert (found.share == 1).all()


def test_planted_absorption_is_found(generator: torch.Generator) -> None:
    """Rows hold a general feature; some hold a special one with it, and there the wide dictionary's general latent is
    silent, because the special one writes both."""
    general, special = torch.eye(5)[0], torch.eye(5)[1]
    has = torch.rand(1000, generator=generator) < 0.6
    with_special = has & (torch.rand(1000, generator=generator) < 0.3)
    x = has[:, None] * general + with_special[:, None] * special
    narrow = reading(general[None], general[None], torch.tensor([-0.1]))
    wide = reading(
        torch.stack([general - 2 * special, special, torch.eye(5)[2]]),
        torch.stack([general, general + special, torch.eye(5)[2]]),
        torch.full((3,), -0.1),
    )
    (found,) = absorbed(narrow, wide, x)
    assert (found.general, found.kept, found.taker, found.rows) == (0, 0, 1, int(has.sum()))
    assert found.by_kept == pytest.approx(1 - with_special.sum().item() / has.sum().item())
    assert found.by_taker == 1 and found.cosine == pytest.approx(0.5**0.5)
    whole = reading(torch.stack([general, special]), torch.stack([general, special]), torch.full((2,), -0.1))
    assert absorbed(narrow, whole, x) == []


def test_dictionaries_of_other_sites_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(Refusal, match="the one dictionary writes 5 numbers and the other 6; compare dictionaries"):
        splits(writing(unit(3, 5, generator)), writing(unit(3, 6, generator)))


def test_what_is_written_has_length_one(generator: torch.Generator) -> None:
    torch.testing.assert_close(written(writing(3 * unit(4, 6, generator))).norm(dim=1), torch.ones(4))


def test_a_rotation_keeps_lengths_and_angles_and_moves_everything(generator: torch.Generator) -> None:
    turn = rotation(40, generator)
    torch.testing.assert_close(turn @ turn.T, torch.eye(40), atol=1e-5, rtol=0)
    assert (turn.diagonal().abs() < 0.9).all()
