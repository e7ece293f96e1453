"""The study of residual MLPs taken apart, at a size at which little is found but every step is taken."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.parameters.addresses import find
from microtome.parameters.decompose import Decomposition
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.gates import HingeGates
from microtome.studies.residual_mlp import SPD_OF_ONE, Depth, Found, Residual, judged
from microtome.studies.study import Setting, conduct
from microtome.toys.named import compressed
from tests.studies.sums import Silent

FEW = replace(SPD_OF_ONE, parts=6, steps=2, rows=16)
TINY = (Depth(1, 1, FEW, 6, 4, trained=2, rows=16), Depth(2, 2, FEW, 6, 4, trained=2, rows=16))


def test_the_study_publishes_every_network_and_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    result = conduct(Residual(quick=TINY), Setting(tmp_path, quick=True), Silent())
    names = [c.name for c in result.claims]
    assert len(set(names)) == len(names) == 5
    page = (tmp_path / "page.html").read_text()
    assert "2 layers, network 1" in page and "of 2 networks come apart" in page
    kept = (tmp_path / "found.jsonl").read_text()
    conduct(Residual(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert (tmp_path / "found.jsonl").read_text() == kept


def known(toy_features: int, *, spoiled: bool) -> Found:
    """A part for each feature where it is read and for each neuron where it is written; spoiled, two features share."""
    of = Depth(1, 1, FEW, toy_features, 3)
    toy = compressed(count=toy_features, neurons=3)
    embed, layer = toy.embed.detach(), toy.layers[0]
    read, write = torch.linalg.inv(embed), (layer.w_in.detach() @ embed).T
    if spoiled:
        read, write = torch.cat((read[:1] + read[1:2], read[2:])), write[1:]
    places = find(toy, ["layers.*"])
    factors = {"layers.0.w_in": Factors(read, write), "layers.0.w_out": Factors(torch.eye(3), layer.w_out.detach().T)}
    parts = Decomposed(toy, places, {p: factors[str(p)] for p in places})
    gates = parts.with_gates(HingeGates(size=1e4, offset=-1.0), torch.Generator())  # whatever is active matters
    return judged(Decomposition(gates, (0.0,), 0), of, 1.0, 0)


def test_what_is_right_has_no_errors_and_what_is_shared_has(generator: torch.Generator) -> None:
    right = known(5, spoiled=False)
    assert right.solved and right.reading == [5] and right.writing == [3]
    wrong = known(5, spoiled=True)
    assert not wrong.solved and wrong.reading == [4] and sum(wrong.reading_errors) > 0 == sum(wrong.writing_errors)


@pytest.mark.parametrize(("errors", "solved"), [([0, 0], True), ([0, 1], False)])
def test_solved_is_without_an_error_in_any_layer(errors: list[int], solved: bool) -> None:
    assert Found([1], errors, [1], [0], 0.0, 0.0, [[1.0]]).solved == solved
    assert Found([1], [0], [1], errors, 0.0, 0.0, [[1.0]]).solved == solved
