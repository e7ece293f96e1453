"""Each row of the bench of circuits, on a model so small that only what it says is to be seen."""

import pytest

from microtome.cli.bench_circuits import EDGES, GRAPH, PATHS, SWEEP, Shape, graph_alone, paths, scores_alone, sweep
from microtome.core.errors import Refusal

SMALL = Shape(layers=2, heads=2, d=8, inner=16, vocab=40, pairs=3, tokens=5, batch=2, steps=2, width=16)


def test_a_sweep_has_a_cell_for_every_head_and_position_and_is_exact() -> None:
    found = sweep(SMALL)
    assert found.name == f"{SWEEP}, 20 cells of 3 prompts"
    assert float(found.found.rpartition(" ")[2]) <= 1e-4


def test_paths_take_every_pair_and_graphs_and_scores_are_made() -> None:
    assert paths(SMALL).name == f"{PATHS}, 2 steps, 3 pairs"
    assert scores_alone(SMALL)["peak"] > 0, EDGES
    assert graph_alone(SMALL, 3)["seconds"] > 0, GRAPH


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(Refusal, match="3 heads do not divide a width of 8"):
        sweep(Shape(heads=3, d=8))
