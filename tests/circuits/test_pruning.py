"""Influence is the sum over all paths; the scores are what their definitions say, on graphs small enough to count."""

import pytest
import torch
from torch import Tensor

from microtome.circuits.attribution_graph import Graph, attribute
from microtome.circuits.influence import Edges, influence
from microtome.circuits.pruning import graph_scores, graph_scores_as_circuit_tracer, left_out, prune
from microtome.circuits.replacement import ERROR, FEATURE, TARGET, TOKEN, Node
from microtome.core.errors import Refusal
from tests.circuits.sets import prompt, transcoders
from tests.models import zoo


def drawn(kinds: list[str], edges: dict[tuple[int, int], float], unexplored: tuple[int, ...] = ()) -> Graph:
    """A graph of nodes of these kinds, in order, with edges (target, source): weight; its last node is the target."""
    nodes = [Node(kind, i, 0, i, 1.0) for i, kind in enumerate(kinds)]
    size, dense = len(kinds), torch.zeros(len(kinds), len(kinds))
    for (target, source), weight in edges.items():
        dense[target, source] = weight
    explored = torch.tensor([k in (FEATURE, TARGET) and i not in unexplored for i, k in enumerate(kinds)])
    weights = torch.tensor([float(k == TARGET) for k in kinds])
    return Graph(nodes, Edges.of_rows(range(size), dense, size, 0.0), torch.zeros(size), explored, weights, [])


@pytest.fixture(scope="module")
def graph() -> Graph:
    return attribute(zoo.model("llama"), prompt(), transcoders(zoo.model("llama")))


def dense_influence(shares: Tensor, start: Tensor) -> Tensor:
    return start @ torch.linalg.inv(torch.eye(len(start)) - shares) - start


def test_influence_is_the_sum_over_all_paths(graph: Graph) -> None:
    found = influence(graph.edges.shares(), graph.weights)
    weights = graph.dense().abs()
    shares = weights / weights.sum(1, keepdim=True).clamp(min=1e-10)
    assert torch.allclose(found, dense_influence(shares.double(), graph.weights.double()).float(), atol=1e-5)


def test_all_influence_of_the_targets_ends_in_tokens_and_errors(graph: Graph) -> None:
    found = influence(graph.edges.shares(), graph.weights)
    assert float(found[graph.which(TOKEN, ERROR)].sum()) == pytest.approx(float(graph.weights.sum()), rel=1e-4)


def test_nothing_explained_scores_nothing_and_all_of_it_one() -> None:
    error_alone = drawn([ERROR, TARGET], {(1, 0): 2.0})
    assert graph_scores(error_alone) == pytest.approx((0.0, 0.0))
    assert graph_scores_as_circuit_tracer(error_alone) == pytest.approx((0.0, 0.5))  # its leaf counts as explained
    token_alone = drawn([TOKEN, TARGET], {(1, 0): -2.0})
    assert graph_scores(token_alone) == pytest.approx((1.0, 1.0))


def test_a_component_that_errors_feed_is_half_explained() -> None:
    chain = drawn([FEATURE, ERROR, TARGET], {(2, 0): 1.0, (0, 1): -3.0})
    assert graph_scores(chain) == pytest.approx((0.0, 0.5))
    assert graph_scores_as_circuit_tracer(chain) == pytest.approx((0.0, 2 / 3))


def test_components_not_explored_count_as_errors_which_circuit_tracer_leaves_out() -> None:
    edges = {(4, 0): 0.2, (4, 1): 0.8, (0, 3): 1.0}
    kinds = [FEATURE, FEATURE, ERROR, TOKEN, TARGET]
    some = drawn(kinds, edges, unexplored=(1,))
    assert graph_scores_as_circuit_tracer(some) == pytest.approx((1.0, 1.0))
    assert graph_scores(some) == pytest.approx((0.2, (0.2 + 0.2) / 1.2))
    whole = drawn(kinds, edges | {(1, 2): 1.0})
    assert graph_scores(whole) == pytest.approx((0.2, 0.6))


def test_dropped_weight_counts_as_error(graph: Graph) -> None:
    less = attribute(zoo.model("llama"), prompt(), transcoders(zoo.model("llama")), drop=0.1)
    assert graph_scores(less).replacement < graph_scores(graph).replacement
    assert graph_scores(less).completeness < graph_scores(graph).completeness


def test_what_is_left_out_is_what_neither_is_explained_nor_read_from_errors(graph: Graph) -> None:
    assert left_out(graph) == 0
    less = attribute(zoo.model("llama"), prompt(), transcoders(zoo.model("llama")), drop=0.1)
    kept = prune(less, 0.8, 0.9).kept()
    shares = kept.edges.shares()
    reading = (kept.weights + influence(shares, kept.weights)) * kept.explored
    from_errors = shares.weights * kept.which(ERROR)[shares.sources]
    failed = torch.zeros(len(kept)).index_add(0, shares.targets, from_errors)
    parts = graph_scores(kept).completeness + left_out(kept) + float((reading * failed).sum() / reading.sum())
    assert parts == pytest.approx(1.0, abs=1e-5) and left_out(kept) > left_out(less) > 0


def test_scores_fall_with_the_threshold(graph: Graph) -> None:
    kept = [prune(graph, nodes=share, edges=share).kept() for share in (1.0, 0.9, 0.6, 0.3)]
    sizes, scores = [len(k.edges) for k in kept], [graph_scores(k).completeness for k in kept]
    assert sizes == sorted(sizes, reverse=True) and scores == sorted(scores, reverse=True)
    assert graph_scores(kept[0]) == pytest.approx(graph_scores(graph), abs=2e-3)


def test_what_is_kept_hangs_together_and_keeps_its_weights(graph: Graph) -> None:
    pruned = prune(graph, nodes=0.7, edges=0.9, protect=(TOKEN, TARGET))
    kept = pruned.kept()
    numbers = pruned.nodes.nonzero()[:, 0]
    own = torch.zeros(len(graph), len(graph), dtype=torch.bool)
    own[graph.edges.targets[pruned.edges], graph.edges.sources[pruned.edges]] = True
    assert torch.equal(kept.dense(), (graph.dense() * own)[numbers][:, numbers])
    leads, comes = kept.dense().abs().sum(0) > 0, kept.dense().abs().sum(1) > 0
    assert leads[kept.which(FEATURE, ERROR)].all() and comes[kept.which(FEATURE)].all()
    assert int(kept.which(TOKEN).sum()) == int(graph.which(TOKEN).sum())
    assert torch.allclose(kept.edges.incoming() + kept.edges.dropped, graph.edges.incoming()[pruned.nodes], rtol=1e-4)


def test_errors_stay_unless_they_are_not_protected(graph: Graph) -> None:
    assert int(prune(graph, nodes=0.3).kept().which(ERROR).sum()) == int(graph.which(ERROR).sum())
    assert int(prune(graph, nodes=0.3, protect=(TOKEN, TARGET)).kept().which(ERROR).sum()) < 14


def test_a_share_outside_its_range_is_refused(graph: Graph) -> None:
    with pytest.raises(Refusal, match="nodes is 0"):
        prune(graph, nodes=0.0)
    with pytest.raises(Refusal, match=r"edges is 1.5"):
        prune(graph, edges=1.5)
