"""Classes of rows: those that are of one alone are found, and a weight divides into what each has to itself."""

import pytest
import torch
from torch.nn.functional import normalize

from microtome.parameters.addresses import find
from microtome.parameters.begin import likeness, meetings
from microtome.parameters.classes import belonging, overlap, pure, shares, split
from microtome.toys import GatedTrigonometry


def test_rows_of_several_classes_at_once_are_left_aside(generator: torch.Generator) -> None:
    """Neurons that belong to functions: rows on which two are on are like both and no class of their own."""
    toy = GatedTrigonometry(3, 10, generator=generator)
    places = find(toy, ["w_in.*", "w_out.*"])
    x = toy.draw(400, generator)
    sides = [tuple(normalize(s, dim=-1) for s in m) for m in meetings(toy, places, x, ()).values()]
    alike = torch.stack([likeness(*side) for side in sides]).mean(0)
    members = pure(alike, 3, 0.9, generator)
    on = members @ x[:, 1:] / members.sum(1, keepdim=True)
    assert sorted(on.argmax(1).tolist()) == [0, 1, 2] and (on.max(1).values > 0.9).all()
    assert (members.sum(1) > 20).all()


def two_classes(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in the first two and in the last two of five dimensions, and which are which."""
    x = torch.randn(60, 5, generator=generator)
    of = torch.arange(60) % 2
    x[of == 0, 2:], x[of == 1, :3] = 0.0, 0.0
    return x, torch.stack((of == 0, of == 1)).float()


def test_shares_are_projections_where_classes_share_nothing(generator: torch.Generator) -> None:
    x, members = two_classes(generator)
    own = shares(members, x, firm=1e-7)
    expected = torch.zeros(2, 5, 5)
    expected[0, :2, :2], expected[1, 3:, 3:] = torch.eye(2), torch.eye(2)
    torch.testing.assert_close(own, expected, atol=1e-3, rtol=0)
    assert overlap(own) < 0.01
    alike = shares(torch.ones(2, 60), x)
    torch.testing.assert_close(alike[0], alike[1])
    assert overlap(alike) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("apart", ["reading", "writing"])
def test_a_weight_divides_on_the_side_that_tells_classes_apart(apart: str, generator: torch.Generator) -> None:
    x, members = two_classes(generator)
    weight, same = torch.randn(5, 5, generator=generator), torch.randn(60, 5, generator=generator)
    weight[:, 2] = weight[2] = 0.0  # where no row lies
    read, write = (x, same) if apart == "reading" else (same, x)
    parts = split(weight, members, read, write)
    torch.testing.assert_close(parts.sum(0), weight, atol=1e-2, rtol=0)
    silent = parts[0][:, 3:] if apart == "reading" else parts[0][3:]
    assert silent.abs().max() < 1e-2 * weight.abs().max()


def test_seeds_divide_by_themselves(generator: torch.Generator) -> None:
    x, members = two_classes(generator)
    weight, same = torch.randn(2, 5, 5, generator=generator), torch.randn(60, 5, generator=generator)
    both = split(weight, members.expand(2, 2, 60), torch.stack((x, same)), torch.stack((same, x)))
    torch.testing.assert_close(both[0], split(weight[0], members, x, same))
    torch.testing.assert_close(both[1], split(weight[1], members, same, x))


def test_belonging_is_never_negative_and_makes_what_is_alike(generator: torch.Generator) -> None:
    truth = torch.eye(3).repeat(10, 1)
    found = belonging(truth @ truth.T, 3, generator)
    assert (found >= 0).all()
    torch.testing.assert_close(found @ found.T, truth @ truth.T, atol=0.02, rtol=0)
