"""A projection's weight is found where it stands in a network, made where it does not, and never mistaken."""

import pytest
import torch
from torch import Tensor

from microtome.circuits.projections import Inward, Outward, Projection, inside, own_weight
from tests.models import zoo

HEADS, E, D = 3, 4, 12


def joined(weight: Tensor, kind: type[Projection]) -> Projection:
    """A projection by this weight [head e d], in a run at two positions."""
    if kind is Inward:
        x = torch.randn(1, 2, D, requires_grad=True)
        return Inward(torch.einsum("bsd,hed->bshe", x, weight), x)
    z = torch.randn(1, 2, HEADS, E, requires_grad=True)
    return Outward(torch.einsum("bshe,hed->bsd", z, weight), z)


def placed(weight: Tensor, way: str) -> Tensor:
    """Where a weight may stand: alone, on its side, among others, or in turn with others head by head."""
    rows = weight.flatten(0, 1)
    among = torch.cat((torch.randn(5, D), rows, torch.randn(3, D)))
    in_turn = torch.stack((torch.randn_like(weight), weight), 1).flatten(0, 2)
    return {"alone": rows, "transposed": rows.T.contiguous(), "among": among, "in turn": in_turn}[way]


@pytest.mark.parametrize("kind", [Inward, Outward])
@pytest.mark.parametrize("way", ["alone", "transposed", "among", "in turn"])
def test_a_weight_is_found_as_a_view_of_the_parameter_in_which_it_stands(kind: type[Projection], way: str) -> None:
    weight = torch.randn(HEADS, E, D)
    parameters = [torch.randn(HEADS * E, D), placed(weight, way)]
    found = own_weight(parameters, joined(weight, kind))
    assert found is not None and torch.equal(found, weight)
    assert found.untyped_storage().data_ptr() == parameters[1].untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", [Inward, Outward])
def test_a_weight_that_only_begins_alike_is_no_weight_of_the_network(kind: type[Projection]) -> None:
    weight = torch.randn(HEADS, E, D)
    other = weight.clone()
    other[-1, -1, -1] += 0.1
    assert own_weight([other.flatten(0, 1)], joined(weight, kind)) is None
    torch.testing.assert_close(joined(weight, kind).weight(), weight)


def test_rows_without_room_for_every_head_are_not_taken() -> None:
    weight = torch.randn(HEADS, E, D)
    begins = weight[:2, 0, :8]
    assert inside(weight.flatten(0, 1)[:-1], begins, weight.shape) is None
    assert inside(weight.flatten(0, 1)[:, :-1], begins, weight.shape) is None
    assert inside(weight.flip(0).flatten(0, 1), begins, weight.shape) is None


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_the_weights_of_families_are_views_of_their_own(name: str) -> None:
    model = zoo.model(name)
    sites = [model.site(f"{kind}.1") for kind in ("z", "attn_out")]
    trace = model.run(zoo.batch(name).rows(slice(0, 1)), read=sites, leaves=sites[:1])
    projection = Outward(trace[sites[1]], trace[sites[0]])
    own = own_weight(model.weights(), projection)
    assert own is not None and any(
        own.untyped_storage().data_ptr() == p.untyped_storage().data_ptr() for p in model.weights()
    )
    torch.testing.assert_close(own, projection.weight())
