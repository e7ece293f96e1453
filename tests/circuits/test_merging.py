"""Graphs of several prompts as one: sums stay sums, and a merged graph is a graph."""

import pytest
import torch

from microtome.circuits.attribution_graph import Graph, attribute, each_prompt
from microtome.circuits.influence import influence
from microtome.circuits.merging import merge, present
from microtome.circuits.pruning import graph_scores, prune
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN
from microtome.circuits.targets import LogitDifference
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from tests.circuits.sets import relative, transcoders
from tests.models import zoo


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    model = zoo.model("llama")
    return list(each_prompt(model, Tokens.of(zoo.RAGGED), transcoders(model), targets=LogitDifference(7, 9)))


def test_edges_and_bias_still_make_every_node(graphs: list[Graph]) -> None:
    merged = merge(graphs)
    sums = torch.zeros(len(merged)).index_add(0, merged.edges.targets, merged.edges.weights) + merged.bias
    reading = merged.which(FEATURE, TARGET)
    assert relative(sums[reading], merged.activity[reading]) < 1e-4


def test_a_graph_merged_with_itself_has_its_influence_by_component(graphs: list[Graph]) -> None:
    one, two = merge(graphs[:1]), merge([graphs[0], graphs[0]])
    assert torch.allclose(one.dense(), two.dense(), atol=1e-6)
    assert float(one.activity[one.which(FEATURE)].sum()) == pytest.approx(
        float(graphs[0].activity[graphs[0].which(FEATURE)].sum()), rel=1e-4
    )


def test_a_merged_graph_is_scored_and_pruned_as_any_other(graphs: list[Graph]) -> None:
    merged = merge(graphs)
    reached = influence(merged.edges.shares(), merged.weights)
    ends = reached[merged.which(TOKEN, ERROR)].sum()
    assert float(ends) == pytest.approx(float(merged.weights.sum()), rel=1e-3)
    assert 0 < graph_scores(merged).completeness < 1
    assert len(prune(merged, 0.5, 0.8).kept()) < len(merged)
    shares = present(graphs, merged)
    assert max(shares) == 1.0 and min(shares) == pytest.approx(1 / 3)


def test_no_graphs_are_refused() -> None:
    with pytest.raises(Refusal, match="no graphs to merge"):
        merge([])
    model = zoo.model("llama")
    alone = attribute(model, Tokens.of([zoo.RAGGED[0]]), transcoders(model))
    assert int(merge([alone]).which(TARGET).sum()) == int(alone.which(TARGET).sum())
