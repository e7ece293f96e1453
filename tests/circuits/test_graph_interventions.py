"""What a graph foretells of an intervention is what happens where the network is as linear as the graph takes it."""

import pytest
import torch

from microtome.circuits.attribution_graph import Graph, graph_of
from microtome.circuits.graph_interventions import Comparison, compare, foretold, held_attention, rank
from microtome.circuits.replacement import FEATURE, TOKEN, Replacement
from microtome.circuits.targets import Activity, LogitDifference, Target, Targets, TopLogits
from microtome.core.errors import Refusal
from microtome.core.linear import Linear, Neurons
from microtome.models.hooked import HookedModel
from tests.circuits.sets import prompt, transcoders
from tests.models import zoo


def built(name: str, targets: Targets) -> tuple[Replacement, Graph, Target]:
    model = zoo.model(name)
    also = [model.site(n) for n in targets.reads]
    replacement = Replacement(model, prompt(), transcoders(model), also=also)
    return replacement, graph_of(replacement, targets), targets.on(replacement)[0]


def test_foretold_is_the_sum_over_all_paths() -> None:
    _, graph, _ = built("llama", TopLogits())
    dense = graph.dense().double()
    answers = torch.where(graph.which(FEATURE), 1 / graph.activity.double(), torch.zeros(len(graph)).double())
    for node in range(0, len(graph) - 10, 11):
        inner = dense * answers[:, None]
        inner[node] = 0
        share = torch.zeros(len(graph)).double()
        share[node] = -1.0
        wanted = dense @ torch.linalg.solve(torch.eye(len(graph)).double() - inner, share)
        assert torch.allclose(foretold(graph, {node: 0.0}).double(), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_small_change_does_what_was_foretold_to_what_is_read_before_the_next_norm_and_component(name: str) -> None:
    """Of a direction of the first layer's output, the effect is exactly the edge: nothing bends in between."""
    model = zoo.model(name)
    probe = Linear(model.site("resid_post.0"), None, torch.randn(1, 32))
    replacement, graph, target = built(name, Activity((probe[0],)))
    writers = [i for i, n in enumerate(graph.nodes) if n.layer == 0 and n.position == 6 and n.kind == FEATURE]
    found = compare(model, replacement, graph, target, writers)
    assert torch.allclose(found.predicted, found.measured, atol=1e-4)
    assert found.pearson == pytest.approx(1.0, abs=1e-3)
    pairs = [tuple(writers[:2]), tuple(writers[1:4])]
    both = compare(model, replacement, graph, target, pairs, by=3.0)
    assert torch.allclose(both.predicted, both.measured, atol=1e-4)
    swapped = compare(model, replacement, graph, target, [{writers[0]: 0.0, writers[1]: 2.0}])
    assert torch.allclose(swapped.predicted, swapped.measured, atol=1e-4)


def test_where_the_dictionaries_are_the_network_a_small_change_does_what_was_foretold(network: HookedModel) -> None:
    """Its neurons are its components, so there is no error, and nothing bends while none of them is switched."""
    neurons = [
        Neurons(
            network.site(f"mlp_in.{l}"), network.site(f"mlp_out.{l}"),
            block.mlp[0].weight, block.mlp[0].bias, block.mlp[2].weight.T, block.mlp[2].bias,
        )
        for l, block in enumerate(network.module.layers)
    ]  # fmt: skip
    replacement = Replacement(network, prompt(), neurons, constant_at=())
    wanted = LogitDifference(7, 9)
    graph, target = graph_of(replacement, wanted), wanted.on(replacement)[0]
    writers = [i for i, n in enumerate(graph.nodes) if n.kind in (FEATURE, TOKEN)]
    found = compare(network, replacement, graph, target, writers, by=0.999)
    assert torch.allclose(found.predicted, found.measured, atol=2e-5)
    assert found.pearson > 0.99


def test_the_correlations_are_those_of_their_names() -> None:
    found = Comparison(
        [{i: 0.0} for i in range(4)], torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 4.0, 9.0, 16.0])
    )
    assert found.spearman == pytest.approx(1.0)
    wanted = torch.corrcoef(torch.stack([found.predicted, found.measured]))[0, 1]
    assert found.pearson == pytest.approx(float(wanted), abs=1e-6)
    assert rank(torch.tensor([5.0, 1.0, 5.0])).tolist() == [1.5, 0.0, 1.5]


def test_what_writes_nothing_is_refused() -> None:
    model = zoo.model("llama")
    replacement, graph, target = built("llama", LogitDifference(7, 9))
    assert len(held_attention(replacement)) == 2
    with pytest.raises(Refusal, match="writes nothing"):
        compare(model, replacement, graph, target, [len(graph) - 1])
    with pytest.raises(Refusal, match="has no target 'logit 1'"):
        compare(model, replacement, graph, target._replace(label="logit 1"), [0])
