"""Components of convolutional networks: their axis is not the last, and every edit minds that."""

import pytest
import torch
from torch import Tensor, nn

from microtome.core.codes import DenseCodes
from microtome.core.component import Dictionary, Directions
from microtome.core.edit import Edit, ablate, add, clamp, masked, project_out, splice
from microtome.core.inputs import Arrays
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.models.load import load

PICTURES = Arrays((torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)),))
MODEL = load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)))
SITE = MODEL.site("1")
BEFORE = MODEL.run(PICTURES, read=[SITE])[SITE]


def dictionary() -> Linear:
    generator = torch.Generator().manual_seed(1)
    return Linear(SITE, SITE, torch.randn(7, 4, generator=generator)).requires_grad_(False)


def after(edit: Edit) -> Tensor:
    return MODEL.run(PICTURES, read=[SITE], edit=[edit])[SITE]


def test_codes_stand_at_every_place_of_a_picture() -> None:
    codes = MODEL.run(PICTURES, read=[SITE]).codes(dictionary())
    assert SITE.axes == "batch d y x" and codes.shape == (2, 4, 3)
    torch.testing.assert_close(
        codes.dense(), torch.einsum("bdyx,nd->byxn", BEFORE, dictionary().directions().read[:, 0])
    )


def test_every_edit_by_component_writes_along_the_channels() -> None:
    d = dictionary()
    codes, write = d.encode(BEFORE.movedim(1, -1)).dense(), d.directions().write[:, 0]
    by_hand = codes[..., 3, None] * write[3]
    torch.testing.assert_close(BEFORE - after(ablate(d[3])), by_hand.movedim(-1, 1))
    torch.testing.assert_close(after(add(d[3], 2.0)) - BEFORE, (2 * write[3])[:, None, None].expand_as(BEFORE))
    clamped = (1.0 - codes[..., 3, None]) * write[3]
    torch.testing.assert_close(after(clamp(d[3], 1.0)) - BEFORE, clamped.movedim(-1, 1))
    torch.testing.assert_close(after(splice(d)), d.reconstruct(BEFORE.movedim(1, -1)).movedim(-1, 1))
    torch.testing.assert_close(after(masked(d, torch.ones(7))), BEFORE)
    gone = after(project_out(write[3], SITE))
    torch.testing.assert_close(torch.einsum("bdyx,d->byx", gone, write[3]), torch.zeros(2, 4, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("where", [{"y": 2}, {"x": 1, "y": 0}, {"y": [0, 2]}, {"batch": 1, "x": slice(1, 3)}])
def test_an_edit_at_some_places_leaves_the_others(where: dict) -> None:
    d = dictionary()
    moved = BEFORE - after(ablate(d[3]).at(**where))
    whole = BEFORE - after(ablate(d[3]))
    there = torch.zeros(2, 1, 4, 3, dtype=torch.bool)
    index = [where.get(a, slice(None)) for a in ("batch", "d", "y", "x")]
    there[tuple(index)] = True
    torch.testing.assert_close(moved, whole * there)


def test_the_width_axis_is_the_one_that_places_do_not_share() -> None:
    assert [Site("a", axes).width_axis for axes in ("batch pos d", "batch d y x", "batch d", "batch pos head d")] == [
        -1, -3, -1, -1,
    ]  # fmt: skip


def test_what_is_decoded_without_codes_is_added_everywhere() -> None:
    class Nothing(Dictionary):
        reads = writes = (SITE,)

        def encode(self, x: Tensor) -> DenseCodes:
            return DenseCodes(x.new_zeros(*x.shape[:-1], 1))

        def decode(self, codes: DenseCodes) -> Tensor:
            return torch.arange(4.0).expand(*codes.shape, 4)

        def directions(self) -> Directions:
            return Directions(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))

    torch.testing.assert_close(after(splice(Nothing())), torch.arange(4.0)[:, None, None].expand_as(BEFORE))
