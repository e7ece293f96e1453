"""A dictionary is its components; a component is one thing that reads and writes."""

import pytest
import torch

from microtome.core.component import Component
from microtome.core.errors import NoSuchComponent, NoSuchSite, Refusal
from microtome.core.linear import Coordinates, Linear, Neurons
from microtome.core.site import Site
from microtome.core.trace import Trace
from tests import toys

SITE = Site("resid_post.0")


def test_going_through_a_dictionary_meets_each_component_once() -> None:
    dictionary = Coordinates(SITE, 4)
    assert [c.index for c in dictionary] == [0, 1, 2, 3] and len(dictionary) == 4
    assert list(dictionary)[2] == dictionary[2] == dictionary[-2] == Component(dictionary, 2)


def test_a_component_outside_the_dictionary_is_refused() -> None:
    for index in (4, -5):
        with pytest.raises(NoSuchComponent, match=rf"component {index} is outside 0\.\.3"):
            Coordinates(SITE, 4)[index]


def test_a_component_is_its_rows_of_the_directions() -> None:
    read, write = torch.randn(3, 5), torch.randn(3, 4)
    component = Linear(SITE, Site("mlp_out.0"), read, write)[1]
    assert torch.equal(component.read[0], read[1]) and torch.equal(component.direction, write[1])
    assert str(component) == "Linear@mlp_out.0:1"


def test_linear_components_without_a_direction_of_their_own_write_what_they_read() -> None:
    read, x = torch.randn(3, 5), torch.randn(2, 5)
    dictionary = Linear(SITE, SITE, read, offset=torch.ones(5))
    torch.testing.assert_close(dictionary.decode(dictionary.encode(x)), (x - 1) @ read.T @ read + 1)


def test_learning_a_linear_dictionary_leaves_what_it_was_made_of_alone() -> None:
    read = torch.randn(3, 5)
    made, before = Linear(SITE, SITE, read), read.clone()
    with torch.no_grad():
        made.read.zero_()
    assert torch.equal(read, before)


def test_neurons_write_what_the_network_writes() -> None:
    network, inputs = toys.residual(), toys.rows()
    one, _, two = network.module.layers[0].mlp
    dictionary = Neurons(Site("mlp_in.0"), Site("mlp_out.0"), one.weight, one.bias, two.weight.T, two.bias)
    trace = network.run(inputs, read=["mlp_in.0", "mlp_act.0", "mlp_out.0"])
    torch.testing.assert_close(trace.codes(dictionary).dense(), trace["mlp_act.0"])
    torch.testing.assert_close(dictionary.decode(trace.codes(dictionary)), trace["mlp_out.0"])


def test_a_trace_is_a_mapping_in_the_order_of_the_network_and_works_codes_out_once() -> None:
    network = toys.residual()
    trace = network.run(toys.rows(), read=["resid_post.1", "embed", "resid_post.0"])
    assert list(trace) == ["embed", "resid_post.0", "resid_post.1"] and SITE in trace and "logits" not in trace
    dictionary = Coordinates(SITE, toys.WIDTH)
    assert trace.codes(dictionary) is trace.codes(dictionary)
    with pytest.raises(NoSuchSite, match="'logits' was not read; this trace holds embed, resid_post.0, resid_post.1"):
        trace["logits"]
    with pytest.raises(NoSuchSite, match="this trace holds nothing"):
        Trace(toys.rows())["logits"]


def test_rows_of_a_trace_are_the_trace_of_those_rows() -> None:
    network = toys.residual()
    part = network.run(toys.rows(), read=[SITE]).rows(slice(1, 3))
    torch.testing.assert_close(part[SITE], network.run(toys.rows().rows(slice(1, 3)), read=[SITE])[SITE])
    assert torch.equal(part[SITE.at(pos=-1)], part[SITE][:, -1])


def test_a_component_of_higher_rank_has_no_one_direction() -> None:
    class Planes(Coordinates):
        def directions(self):
            one = super().directions()
            return type(one)(one.read.unflatten(0, (-1, 2))[:, :, 0], one.write.unflatten(0, (-1, 2))[:, :, 0])

    with pytest.raises(Refusal, match="writes a subspace of rank 2, not one direction; use its `write`"):
        _ = Planes(SITE, 4)[0].direction


def test_heads_side_by_side_are_not_read_where_a_trace_holds_them_apart() -> None:
    site = Site("z.0", "batch pos head d")
    trace = Trace(toys.rows(), {"z.0": torch.randn(2, 5, 3, 4)}, {"z.0": site})
    assert Coordinates(site, 4).gather(trace).shape == (2, 5, 3, 4)
    with pytest.raises(
        Refusal, match=r"Coordinates reads 12 numbers at a place, and z.0 holds 3 heads of 4 each, apart"
    ):
        Coordinates(site, 12).gather(trace)
    assert Coordinates(site, 12).gather({site: torch.randn(7, 12)}).shape == (7, 12)
