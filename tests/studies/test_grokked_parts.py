"""Planes of frequencies, in answers and in the stream, and what a decomposition's parts span of them."""

import pytest
import torch

from microtome.dynamics.fourier import basis, rows_of
from microtome.notebook.page import Table
from microtome.parameters.begin import Drawn, FromRows
from microtome.parameters.spd import SPD
from microtome.studies.grokked_parts import (
    W_OUT,
    answer_planes,
    claims,
    least_cosine,
    parted,
    pieces,
    stream_planes,
    taken_apart,
)
from microtome.toys.modular import ModularAddition

P = 11


def network() -> ModularAddition:
    return ModularAddition(P, 16, 2, 12, generator=torch.Generator().manual_seed(0)).requires_grad_(False)


def test_the_least_cosine_is_of_the_direction_that_is_spanned_worst() -> None:
    plane = answer_planes(P, [3])[3]
    assert least_cosine(plane, basis(P)[5:8] * 2) == pytest.approx(1)  # of frequency 3 and a cosine of 4
    assert least_cosine(plane, basis(P)[[5, 7]]) == pytest.approx(0, abs=1e-6)
    turned = torch.stack((plane[0], plane[1] + basis(P)[0]))
    assert least_cosine(plane, turned) == pytest.approx(0.5**0.5)
    assert least_cosine(plane, plane[:1].repeat(3, 1)) == least_cosine(plane, plane[:0]) == 0


def test_where_attention_is_even_the_stream_holds_what_the_embedding_holds() -> None:
    model = network()
    model.w_q.zero_()
    written = torch.einsum("nd,hed,hfe->nf", model.embed[:P], model.w_v, model.w_o)
    for k, plane in stream_planes(model, [2, 5]).items():
        assert least_cosine(plane, basis(P)[rows_of([k], P)] @ written) == pytest.approx(1, abs=1e-6)


def test_parts_that_are_the_whole_weight_span_every_plane() -> None:
    model = network()
    found = taken_apart(model, SPD(parts=32, steps=1, rows=32, minimal=0.0), FromRows(), 0, lambda done: None)
    seen = {one.name: one for one in parted(model, found, [1, 4], "along inputs")}
    assert seen[W_OUT].alive >= P and seen[W_OUT].chance == 1 and seen[W_OUT].worst == pytest.approx(1, abs=1e-4)
    assert all(claim.found is not None for claim in claims(list(seen.values())))
    tables = [piece for piece in pieces(list(seen.values())) if isinstance(piece, Table)]
    assert [len(row) for row in tables[0].rows] == [len(tables[0].columns)] * 2


def test_without_key_frequencies_nothing_is_claimed_to_hold() -> None:
    model = network()
    found = taken_apart(model, SPD(parts=2, steps=1, rows=8), Drawn(), 0, lambda done: None)
    assert not any(claim.ok for claim in claims(parted(model, found, [], "as drawn")))
