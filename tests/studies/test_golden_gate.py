"""The study of amplified latents: what it counts is what it says, and a small form of it runs on the specimen."""

from pathlib import Path

import pytest

from microtome.studies.golden_gate import (
    BROKEN,
    REPEATS,
    Found,
    GoldenGate,
    Size,
    Texts,
    breaks_at,
    holds_it,
    preference,
)
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(
    tokens=4000, passes=1, width=64, k=8, new=6, texts=4, trials=4, candidates=1, controls=1, doses=(0.01, 0.02)
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "there"), [("raise ValueError", True), ("x = raise_it", False), ("raised", False), ("\n  raise", True)]
)
def test_a_concept_is_a_word_by_itself(text: str, there: bool) -> None:
    assert holds_it("raise", text) == there


def test_text_breaks_down_at_the_least_dose_that_costs_too_much() -> None:
    plain, dear = Texts(0.0, 2.0, 0.8, ""), Texts(1.0, 2.1 + BROKEN, 0.8, "")
    same = Texts(1.0, 1.0, 0.7 * REPEATS, "")
    for broken in (dear, same):
        assert breaks_at(Found(plain, [1.0, 2.0, 4.0], [plain, broken, plain], [])) == 2.0
    assert breaks_at(Found(plain, [1.0], [plain], [])) == float("inf")


def test_the_rarest_concept_that_works_is_preferred() -> None:
    kinds = [
        (0.9, 0.02),
        (0.6, 0.0),
        (0.7, 0.0),
        (0.4, 0.0),
        (0.45, 0.03),
    ]  # share when steered, share in ordinary text
    assert max(kinds, key=lambda each: preference(*each)) == (0.7, 0.0)
    assert max(kinds[3:], key=lambda each: preference(*each)) == (0.45, 0.03)


def test_the_study_runs(tmp_path: Path) -> None:
    report = GoldenGate(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    found = {c.name: c for c in report.claims}
    assert len(found) == len(report.claims) == 6
    assert found["nats a token at that dose beyond those of ordinary texts"].ok  # a dose so small changes little
    assert not found["the dose at which text breaks down"].ok
