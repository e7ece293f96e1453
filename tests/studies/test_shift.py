"""The study of SHIFT: its rows are what they say, and a small form of it runs on the specimen."""

from collections.abc import Iterator
from pathlib import Path

from microtome.models.load import load
from microtome.studies.shift import Rows, Shift, Size, drawn
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(tokens=6_000, width=64, k=8, rows=12, read=300)


def test_rows_are_of_four_kinds_and_hold_what_they_say(tmp_path: Path) -> None:
    model = load("specimen", verify=False)
    material = drawn(model, TINY, Setting(tmp_path))
    assert material.balanced.groups.bincount().tolist() == [TINY.rows] * 4
    assert material.ambiguous.wanted.equal(material.ambiguous.cue)
    for ids, wanted, cue in listed(material.judged):
        said = [model.tokenizer.decode([i]).strip() for i in ids]
        first, second = said[1 : 1 + TINY.piece], said[1 + TINY.piece :]
        assert ("self" in first) == wanted and "self" not in second
        assert (sum(w.isdigit() for w in second) >= 2) == cue and ("import" in second) != cue
        assert not any(w.isdigit() or w == "import" for w in first)


def listed(given: Rows) -> Iterator[tuple[list[int], bool, bool]]:
    return zip(given.tokens.ids.tolist(), given.wanted.tolist(), given.cue.tolist(), strict=True)


def test_the_study_runs(tmp_path: Path) -> None:
    report = Shift(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in report.claims}) == len(report.claims) == 7
