"""Who wrote how much of what everyone read: against circuit-tracer's own run, and in what the numbers must be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from microtome.circuits.attribution_graph import Graph, attribute, each_prompt
from microtome.circuits.influence import Edges
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN, Replacement
from microtome.circuits.targets import Activity, LogitDifference, TopLogits
from microtome.core.errors import NoSuchSite, Refusal
from microtome.core.inputs import Tokens
from microtome.core.linear import Linear
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import ReLU
from microtome.dictionaries.formats.circuit_tracer import CircuitTracer
from microtome.dictionaries.formats.format import Source
from microtome.dictionaries.transcoder import Transcoder
from microtome.models.load import load
from tests.circuits.sets import autoencoders, cross_layer, prompt, relative, transcoders
from tests.models import zoo


def recorded(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / "sae-fixtures/circuit-tracer/graph_lily_park_adjacency.npz") as held:
        return dict(held)


@pytest.fixture(scope="module")
def lily_park() -> Graph:
    import os

    given = os.environ.get("MICROTOME_DATA")
    if not given:
        pytest.skip("MICROTOME_DATA names no folder of real material")
    folder = Path(given)
    model = load(folder / "tinystories-656k-hf", verify=False)
    dictionaries = CircuitTracer().load(Source(folder / "sae-fixtures/circuit-tracer")).dictionaries
    ids = torch.tensor(recorded(folder)["input_tokens"])
    return attribute(model, Tokens.of(ids[None]), dictionaries, TopLogits(most=5))


def test_it_is_the_graph_that_circuit_tracer_recorded(lily_park: Graph, shared_data: Path) -> None:
    held = recorded(shared_data)
    wanted = torch.tensor(held["adjacency_matrix"])
    found = [(n.layer, n.position, n.index) for n in lily_park.nodes if n.kind == FEATURE]
    assert found == [tuple(row) for row in held["active_features"].tolist()]
    worst = (lily_park.dense() - wanted).abs().amax(1)
    assert (worst <= 1e-3 * wanted.abs().amax(1)).all()
    assert torch.allclose(lily_park.weights[-5:], torch.tensor(held["logit_probabilities"]), atol=1e-5)
    assert torch.allclose(lily_park.activity[: len(found)], torch.tensor(held["activation_values"]), atol=1e-4)
    assert lily_park.incomplete < 1e-4


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gpt_neox", "gpt_neox/sequential", "gemma2", "qwen2", "olmo2", "phi"]
)
def test_edges_and_bias_make_every_node_the_targets_too(name: str) -> None:
    graph = attribute(zoo.model(name), prompt(), transcoders(zoo.model(name)))
    reading = graph.which(FEATURE, TARGET)
    sums = torch.zeros(len(graph)).index_add(0, graph.edges.targets, graph.edges.weights) + graph.bias
    assert relative(sums[reading], graph.activity[reading]) < 1e-4
    assert graph.incomplete < 1e-4


def test_a_targets_activity_is_its_logit_less_the_mean() -> None:
    model = zoo.model("llama")
    logits = model.run(prompt())["logits"][0, -1].detach()
    graph = attribute(model, prompt(), transcoders(model), TopLogits(most=3, mass=1.0))
    for node, weight in zip(graph.nodes[-3:], graph.weights[-3:], strict=True):
        assert node.activity == pytest.approx(float(logits[node.index] - logits.mean()), abs=1e-4)
        assert float(weight) == pytest.approx(float(logits.softmax(-1)[node.index]), abs=1e-5)
    difference = attribute(model, prompt(), transcoders(model), LogitDifference(7, 9)).nodes[-1]
    assert difference.activity == pytest.approx(float(logits[7] - logits[9]), abs=1e-4)


def test_top_logits_stop_where_their_probabilities_suffice() -> None:
    model = zoo.model("llama")
    chances = model.run(prompt())["logits"][0, -1].detach().softmax(-1).sort(descending=True).values.cumsum(0)
    graph = attribute(model, prompt(), transcoders(model), TopLogits(most=96, mass=0.5))
    count = int(graph.which(TARGET).sum())
    assert chances[count - 1] >= 0.5 > (chances[count - 2] if count > 1 else 0)


def test_a_probe_and_a_component_are_targets() -> None:
    model = zoo.model("llama")
    made = transcoders(model)
    site = model.site("resid_post.1")
    probe = Linear(site, None, torch.randn(1, 32), offset=torch.randn(32))
    x = model.run(prompt(), read=[site])[site][0, 4].detach()
    graph = attribute(model, prompt(), made, Activity((probe[0],), position=4))
    assert graph.nodes[-1].activity == pytest.approx(float((x - probe.offset) @ probe.read[0].detach()), abs=1e-4)
    assert graph.incomplete < 1e-4
    whole = attribute(model, prompt(), made)
    node = next(i for i, n in enumerate(whole.nodes) if n.kind == FEATURE and n.layer == 1 and n.position == 5)
    same = attribute(model, prompt(), made, Activity((made[1][whole.nodes[node].index],), position=5))
    assert dict(same.into(len(same) - 1)) == pytest.approx(dict(whole.into(node)), abs=1e-5)


def test_a_batch_of_prompts_is_each_prompt() -> None:
    model = zoo.model("gpt2")
    made = transcoders(model)
    for left in (False, True):
        batch = Tokens.of(zoo.RAGGED, left=left)
        for row, graph in zip(zoo.RAGGED, each_prompt(model, batch, made), strict=True):
            alone = attribute(model, Tokens.of([row]), made)
            assert [n.kind for n in graph.nodes] == [n.kind for n in alone.nodes]
            assert torch.allclose(graph.dense(), alone.dense(), atol=1e-5)


def test_many_products_at_once_are_those_one_by_one() -> None:
    model = zoo.model("gemma2")
    one, many = (attribute(model, prompt(), [cross_layer(model)], together=n) for n in (1, 64))
    assert torch.allclose(one.dense(), many.dense(), atol=1e-5)


def test_a_component_of_the_stream_is_explained_through_derivatives_of_the_mlps() -> None:
    model = zoo.model("llama")
    graph = attribute(model, prompt(), autoencoders(model), through_mlps=True)
    held = attribute(model, prompt(), autoencoders(model))
    assert int(graph.which(ERROR).sum()) == 2 * 7 and int(held.which(ERROR).sum()) == 4 * 7
    sums = torch.zeros(len(graph)).index_add(0, graph.edges.targets, graph.edges.weights) + graph.bias
    reading = graph.which(FEATURE, TARGET)
    assert relative(sums[reading], graph.activity[reading]) < 1e-4


def test_what_is_dropped_is_accounted() -> None:
    model = zoo.model("llama")
    whole, less = (attribute(model, prompt(), transcoders(model), drop=share) for share in (0.0, 0.05))
    assert len(less.edges) < 0.8 * len(whole.edges)
    assert torch.allclose(less.edges.incoming() + less.edges.dropped, whole.edges.incoming(), rtol=1e-4)
    assert (less.edges.dropped <= 0.05 * whole.edges.incoming() + 1e-6).all()


def test_the_most_influential_components_are_explored_first() -> None:
    model = zoo.model("llama")
    whole, some = (attribute(model, prompt(), transcoders(model), most=most) for most in (None, 20))
    assert int((some.explored & some.which(FEATURE)).sum()) == 20
    mine = some.explored[some.edges.targets]
    assert mine.all()
    rows = some.explored.nonzero()[:, 0]
    assert torch.allclose(some.dense()[rows], whole.dense()[rows], atol=1e-5)


def test_rows_keep_their_largest_entries() -> None:
    rows = torch.tensor([[5.0, -3.0, 0.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    edges = Edges.of_rows([3, 4], rows, 5, 0.2)
    assert edges.dense()[3].tolist() == [5, -3, 0, 0, 0] and edges.dropped.tolist() == [0, 0, 0, 2, 0]


def test_a_graph_too_large_is_refused_with_what_would_fit() -> None:
    model = zoo.model("llama")
    made = transcoders(model)
    nodes = len(Replacement(model, prompt(), made).nodes)
    with pytest.raises(Refusal, match=r"most=\d+ would fit") as refused:
        attribute(model, prompt(), made, memory=20 * nodes * 30)
    fits = int(str(refused.value).split("most=")[1].split()[0])
    assert attribute(model, prompt(), made, most=fits, memory=20 * nodes * 30).explored.sum() <= 30
    with pytest.raises(Refusal, match="shorter prompt"):
        attribute(model, prompt(), made, memory=100)


def test_a_network_that_norms_its_stream_is_refused() -> None:
    model = zoo.model("opt/post-norm")
    with pytest.raises(Refusal, match="not linear|norm"):
        attribute(model, prompt(), transcoders(model))


def test_wrong_settings_are_refused() -> None:
    model = zoo.model("llama")
    made = transcoders(model)
    with pytest.raises(Refusal, match="drop is 2"):
        attribute(model, prompt(), made, drop=2.0)
    with pytest.raises(Refusal, match="token 96 is outside the vocabulary of 96"):
        attribute(model, prompt(), made, LogitDifference(96, 1))
    tokens = attribute(model, prompt(), made).which(TOKEN)
    assert int(tokens.sum()) == 7


def test_a_dictionary_of_the_wrong_hook_or_width_is_refused() -> None:
    model = zoo.model("llama")

    def refused(reads: str, writes: str, d_in: int, d_out: int) -> str:
        made = Transcoder(
            Site(reads), Site(writes), d_in, d_out, 20, ReLU(), generator=torch.Generator().manual_seed(0)
        )
        with pytest.raises((Refusal, NoSuchSite)) as caught:
            attribute(model, prompt(), [made.requires_grad_(False)], TopLogits())
        return str(caught.value)

    wide = model.run(prompt(), read=["mlp_act.0"])["mlp_act.0"].shape[-1]
    assert "comes after mlp_out.0, where it writes" in refused("mlp_in.1", "mlp_out.0", 32, 32)
    assert "reaches nothing that is read here" in refused("mlp_in.0", "mlp_act.0", 32, wide)
    assert "is 16 wide at mlp_in.0, where this model is 32 wide" in refused("mlp_in.0", "mlp_out.0", 16, 32)
    assert "mlp_in.0" in refused("mlp_inn.0", "mlp_out.0", 32, 32)
