"""Edges have names, an order and a place; what is kept can be cut down to what matters."""

import pytest
import torch

from microtome.circuits.edges import Anatomy, Edge, EdgeGraph, Reader, Writer
from microtome.core.errors import NoSuchPlace, Refusal

SMALL = Anatomy(2, 4, 2)


def graph(anatomy: Anatomy = SMALL) -> EdgeGraph:
    each = torch.randn(3, len(anatomy.writers), len(anatomy.readers)) * anatomy.possible
    return EdgeGraph.of(anatomy, each)


@pytest.mark.parametrize("parallel", [False, True])
def test_an_edge_goes_from_what_comes_before_to_what_comes_after(parallel: bool) -> None:
    anatomy = Anatomy(3, 4, 2, parallel)
    for edge in EdgeGraph.of(anatomy, torch.zeros(1, *anatomy.possible.shape)):
        writer, reader = edge
        within = writer.kind == "head" and reader.kind == "mlp" and writer.layer == reader.layer
        assert writer.layer < reader.layer or (within and not parallel)
    expected = sum(1 + r.layer * 5 + (4 if r.kind == "mlp" and not parallel else 0) for r in anatomy.readers)
    assert anatomy.possible.sum() == expected


def test_the_anatomy_of_gpt2_has_the_number_of_edges_that_is_known_for_it() -> None:
    assert Anatomy(12, 12, 12).possible.sum() == 32_491


def test_names_are_read_as_they_are_written_and_places_are_where_slices_say() -> None:
    for edge in graph():
        assert SMALL.named(str(edge)) == edge
    for layer in range(2):
        assert [w.layer for w in SMALL.writers[SMALL.writers_of(layer)]] == [layer] * 4
        assert SMALL.writers[SMALL.mlp_of(layer)] == Writer("mlp", layer)
        for kind in ("q", "k", "v", "mlp"):
            assert {(r.kind, r.layer) for r in SMALL.readers[SMALL.read_at(layer, kind)]} == {(kind, layer)}
    assert SMALL.readers[SMALL.read_at(2, "logits")] == (Reader("logits", 2),)


def test_the_top_edges_are_the_largest_and_the_graph_goes_through_them_in_order() -> None:
    found = graph()
    top = found.top(7)
    sizes = [abs(top[edge]) for edge in top]
    assert len(top) == 7 and sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= found.scores[~top.kept].abs().max()
    assert len(found.top(10_000)) == len(found) == int(SMALL.possible.sum())
    best = next(iter(found.top(1, signed=True)))
    assert found[best] == pytest.approx(float(found.scores[SMALL.possible].max()))
    assert torch.equal(found.above(0.5).kept, SMALL.possible & (found.scores.abs() >= 0.5))


def test_edges_on_no_path_from_the_embedding_to_the_logits_fall_away() -> None:
    found = graph()
    kept = torch.zeros_like(found.kept)
    path = ["input->a0.h1<v>", "a0.h3->m1", "m1->logits"]
    loose = ["input->m0", "a0.h1->logits", "a0.h0->a1.h1<k>"]  # leads nowhere; comes from nowhere; both
    for name in (*path, *loose):
        kept[SMALL.place(SMALL.named(name))] = True
    left = EdgeGraph(SMALL, found.each, kept).connected()
    assert {str(edge) for edge in left} == set(path)


def test_every_reader_of_a_grouped_key_head_is_a_path_for_each_of_its_query_heads() -> None:
    found = graph()
    kept = torch.zeros_like(found.kept)
    for name in ("input->a0.h1<k>", "a0.h2->logits", "a0.h0->logits"):
        kept[SMALL.place(SMALL.named(name))] = True
    left = EdgeGraph(SMALL, found.each, kept).connected()
    assert {str(edge) for edge in left} == {"input->a0.h1<k>", "a0.h2->logits"}  # heads 2 and 3 share key head 1


@pytest.mark.parametrize("name", ["a9.h0->logits", "m1->m0", "input", "m0->a1.h3<k>"])
def test_edges_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="no edge"):
        SMALL.named(name)


def test_an_edge_backwards_has_no_place() -> None:
    with pytest.raises(NoSuchPlace, match="what writes must come before what reads"):
        SMALL.place(Edge(Writer("mlp", 1), Reader("q", 1, 0)))
