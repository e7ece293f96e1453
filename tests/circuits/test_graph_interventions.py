"""What a graph foretells of an intervention is what happens where the network is as linear as the graph takes it."""

import pytest
import torch

from microtome.circuits.attribution_graph import Graph, graph_of
from microtome.circuits.graph_interventions import (
    Comparison,
    compare,
    foretold,
    held_attention,
    interventions,
    rank,
    react,
)
from microtome.circuits.replacement import FEATURE, TARGET, TOKEN, Replacement
from microtome.circuits.targets import Activity, LogitDifference, Target, Targets, TopLogits
from microtome.core.errors import Refusal
from microtome.core.linear import Linear, Neurons
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.sae import SAE
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


def neurons_of(network: HookedModel) -> list[Neurons]:
    return [
        Neurons(
            network.site(f"mlp_in.{l}"), network.site(f"mlp_out.{l}"),
            block.mlp[0].weight, block.mlp[0].bias, block.mlp[2].weight.T, block.mlp[2].bias,
        )
        for l, block in enumerate(network.module.layers)
    ]  # fmt: skip


def test_where_the_dictionaries_are_the_network_a_small_change_does_what_was_foretold(network: HookedModel) -> None:
    """Its neurons are its components, so there is no error, and nothing bends while none of them is switched."""
    replacement = Replacement(network, prompt(), neurons_of(network), constant_at=())
    wanted = LogitDifference(7, 9)
    graph, target = graph_of(replacement, wanted), wanted.on(replacement)[0]
    writers = [i for i, n in enumerate(graph.nodes) if n.kind in (FEATURE, TOKEN)]
    found = compare(network, replacement, graph, target, writers, by=0.999)
    assert torch.allclose(found.predicted, found.measured, atol=2e-5)
    assert found.pearson > 0.99


def test_components_and_targets_react_as_foretold_where_the_dictionaries_are_the_network(network: HookedModel) -> None:
    replacement = Replacement(network, prompt(), neurons_of(network), constant_at=())
    wanted = TopLogits(3)
    graph, targets = graph_of(replacement, wanted), wanted.on(replacement)
    change = {i: 0.999 for i, n in enumerate(graph.nodes) if n.kind == TOKEN}
    watched = [i for i, n in enumerate(graph.nodes) if n.kind in (FEATURE, TARGET)]
    found = react(network, replacement, graph, targets, change, watched)
    assert torch.allclose(found.predicted, found.measured, atol=2e-5) and found.measured.abs().max() > 1e-3
    alone = compare(network, replacement, graph, targets[0], [change])
    at = found.nodes.index(len(replacement.nodes))
    assert float(found.measured[at]) == pytest.approx(float(alone.measured[0]), abs=1e-5)
    some = found.among([n == watched[at] for n in watched])
    assert some.nodes == [watched[at]] and torch.equal(some.before, graph.activity[[watched[at]]])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_what_is_measured_is_what_the_dictionaries_find_in_the_changed_run(name: str) -> None:
    replacement, graph, _ = built(name, TopLogits(2))
    wanted = TopLogits(2).on(replacement)
    change = {i: 0.0 for i, n in enumerate(graph.nodes) if n.kind == TOKEN and n.position == 3}
    watched = [i for i, n in enumerate(graph.nodes) if n.kind in (FEATURE, TARGET)][::7]
    found = react(replacement.model, replacement, graph, wanted, change, watched)
    sites = {s.name: s for d in replacement.dictionaries for s in d.reads}
    trace = replacement.model.run(prompt(), read=[*sites.values(), "logits"], edit=interventions(replacement, change))
    for number, after in zip(found.nodes, (found.before + found.measured).tolist(), strict=True):
        node = graph.nodes[number]
        if node.kind == FEATURE:
            dictionary = replacement.dictionaries[node.dictionary]
            expected = dictionary.encode(dictionary.gather(trace)).dense()[0, node.position, node.index]
            assert after == pytest.approx(float(expected.detach()), abs=1e-4)


def test_components_of_one_site_do_not_hear_one_another() -> None:
    """An autoencoder answers to what arrives, so taking one of its components away leaves its others as they were."""
    model = zoo.model("llama")
    coder = SAE(model.site("resid_post.0"), 32, 20, ReLU(), generator=torch.Generator().manual_seed(0))
    replacement = Replacement(model, prompt(), [coder.requires_grad_(False)], through_mlps=True)
    wanted = TopLogits(2)
    graph, targets = graph_of(replacement, wanted), wanted.on(replacement)
    first, *others = [i for i, n in enumerate(graph.nodes) if n.kind == FEATURE and n.position == 4]
    found = react(model, replacement, graph, targets, {first: 0.0}, others)
    assert torch.allclose(found.measured, torch.zeros(len(others)), atol=1e-5)
    assert found.predicted.abs().max() == 0


def test_what_reads_nothing_is_not_watched() -> None:
    replacement, graph, target = built("llama", LogitDifference(7, 9))
    token = next(i for i, n in enumerate(graph.nodes) if n.kind == TOKEN)
    with pytest.raises(Refusal, match="reads nothing"):
        react(replacement.model, replacement, graph, [target], {0: 0.0}, [token])
    with pytest.raises(Refusal, match="node none writes nothing"):
        react(replacement.model, replacement, graph, [target], {}, [0])


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
