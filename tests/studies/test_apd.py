"""The study of attribution-based parameter decomposition, at a size at which nothing is found but every step is taken."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.parameters.addresses import find
from microtome.parameters.apd import APD
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.spanning import OfClasses
from microtome.studies.apd import Apd, Experiment, Size
from microtome.studies.apd_across import HALF, Across, Spanned, gated, least_held, owners
from microtome.studies.apd_scrubs import Scrubs, scrubs
from microtome.studies.spd import Toys
from microtome.studies.study import Setting, conduct
from microtome.toys import GatedTrigonometry
from microtome.toys.named import drawn
from tests.studies.sums import Silent

FEW = APD(parts=4, k=1.0, steps=2, rows=16, start=OfClasses("gradients"))
TINY = Size(
    (Experiment(Toys(5, 2, trained=3, kept=2, steps=20, rows=64), APD(steps=3, rows=32), 2, 0.89),),
    (
        Across("gated functions", 2, FEW, seeds=2),
        Across("two residual MLPs", 1, replace(FEW, of_parts=False, probes=2, start=OfClasses()), trained=2, rows=16),
    ),
)


def test_the_study_runs_leaves_a_page_and_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    result = conduct(Apd(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in result.claims}) == len(result.claims) == 3 + 2 + 2
    assert "related left out" in (tmp_path / "page.html").read_text()
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().split("\n") if line]
    assert [line["name"] for line in lines] == [
        "5 in 2", "gated functions, network 0", "gated functions, network 1", "two residual MLPs, network 0",
    ]  # fmt: skip
    again = conduct(Apd(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert [c.found for c in again.claims] == [c.found for c in result.claims]
    assert len((tmp_path / "found.jsonl").read_text().split()) == len(" ".join(map(json.dumps, lines)).split())


def test_separation_is_the_share_of_pairs_in_order() -> None:
    far = Scrubs(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4]))
    assert far.separation == far.within_rows == 1
    assert Scrubs(far.hurt, far.spared).separation == Scrubs(far.hurt, far.spared).within_rows == 0
    assert Scrubs(far.hurt, far.hurt).separation == pytest.approx(0.5)
    mixed = Scrubs(torch.tensor([0.1, 0.35]), torch.tensor([0.3, 0.4]))
    assert mixed.separation == 0.75 and mixed.within_rows == 1


def truth(toy: GatedTrigonometry, merged: bool = False) -> Decomposed:
    """Parts that are the functions; merged, the first two of them are one and a part is empty."""
    made: dict[str, Factors] = {}
    places = find(toy, ["w_in.*", "w_out.*"])
    for place in places:
        parts = toy.parts()[str(place)]
        if merged:
            parts = torch.cat((parts[:2].sum(0, keepdim=True), torch.zeros_like(parts[:1]), parts[2:]))
        left, sizes, right = torch.linalg.svd(parts, full_matrices=False)
        made[str(place)] = Factors(right.flatten(0, 1), (left * sizes[:, None]).mT.flatten(0, 1))
    return Decomposed(toy, places, {p: made[str(p)] for p in places})


def test_parts_that_are_the_functions_are_their_own_in_both_layers() -> None:
    subject = gated(3)
    assert isinstance(subject.module, GatedTrigonometry)
    method = replace(FEW, rank=6)
    learned = truth(subject.module)
    own = owners(learned, subject.alone, method)
    assert own.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(least_held(learned, subject, own, 4), torch.ones(4))  # no other part does anything
    assert (least_held(learned, subject, own.roll(1), 4) < HALF).all()
    assert owners(truth(subject.module, merged=True), subject.alone, method).tolist() == [0, 0, 2, 3]
    x = subject.data.draw(300, drawn(1))
    x = x[(x[:, 1:].sum(1) == 1)]
    assert scrubs(learned, x, method, 1.0, drawn(2)).separation > 0.95


def test_a_function_counts_once_its_part_is_its_own_and_everywhere() -> None:
    nothing = Scrubs(torch.zeros(1), torch.zeros(1))
    found = Spanned([0, 1, 1, 2], [True, False, False, True], [HALF, 1.0, 1.0, 0.9 * HALF], nothing, 0.0)
    assert found.share == 0.25
    assert Spanned.read(json.loads(json.dumps(found.plain()))).share == 0.25
