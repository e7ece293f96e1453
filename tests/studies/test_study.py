"""A study leaves its claims as a record and as a page; a claim holds where what was found is what was expected."""

import json
import math
import re
from pathlib import Path

import pytest

from microtome.core.errors import Refusal
from microtome.store.records import Claim, Result
from microtome.studies.study import STUDIES, Setting, about, at_least, at_most, conduct, find
from tests.studies.sums import Silent, Sums


@pytest.mark.parametrize(
    ("claim", "ok"),
    [
        (about("a", 1.0, 1.05, tolerance=0.1, source="s"), True),
        (about("a", 1.0, 1.2, tolerance=0.1, source="s"), False),
        (about("a", 1.0, math.nan, tolerance=0.1, source="s"), False),
        (at_most("a", 0.5, 0.5, source="s"), True),
        (at_most("a", 0.5, 0.6, source="s"), False),
        (at_most("a", 0.5, -math.inf, source="s"), False),
        (at_least("a", 0.9, 1.0, source="s"), True),
        (at_least("a", 0.9, math.nan, source="s"), False),
    ],
)
def test_a_claim_holds_where_it_should(claim: Claim, ok: bool) -> None:
    assert claim.ok is ok and (claim.found is None or math.isfinite(claim.found))


def test_a_study_leaves_its_result_and_its_page(tmp_path: Path) -> None:
    result = conduct(Sums(), Setting(tmp_path / "new", quick=True, seed=3), Silent())
    found = json.loads((tmp_path / "new" / "result.json").read_text())
    assert found["schema"] == "microtome/result/1" and Result.read(tmp_path / "new") == result and result.ok
    assert found["claims"] == [
        {"name": "one and one", "expected": 2.0, "tolerance": 0.1, "found": 2.0, "ok": True, "source": "arithmetic"}
    ]
    assert {"study", "paper", "seconds"} <= set(found) and found["arguments"]["seed"] == 3
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["page.html", "result.json"]


def test_a_study_with_a_claim_that_fails_is_not_ok_and_its_page_says_so(tmp_path: Path) -> None:
    assert not conduct(Sums(3.0), Setting(tmp_path), Silent()).ok
    page = (tmp_path / "page.html").read_text()
    assert "1 of 1 claims fail." in page and "✗ fails" in page


def test_a_page_asks_for_nothing_and_escapes_what_it_is_given(tmp_path: Path) -> None:
    conduct(Sums(), Setting(tmp_path), Silent())
    page = (tmp_path / "page.html").read_text()
    assert "Nobody &lt;1900&gt;" in page and "&lt;b&gt;" in page and "Sums &amp; more" in page
    assert not re.search(r"\b(?:src|href)\s*=|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page and "prefers-color-scheme:dark" in page and "<svg" in page
    assert page.count("<code>") == 1


def test_studies_are_found_by_name_and_others_are_refused_with_a_list() -> None:
    for name in STUDIES:
        study = find(name)
        assert study.name == name and study.paper and study.question.endswith("?")
    with pytest.raises(Refusal, match="no study 'scalin'; did you mean 'scaling'\\? there are: .*scaling"):
        find("scalin")
