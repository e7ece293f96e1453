"""The study of names: what chance gives where nothing separates, and a run at toy size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.data.names import Pair
from microtome.studies.entities import ALL, Entities, Names, Size, refuse_none, scored
from microtome.studies.slide import Training
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(Training(tokens=3_000, epochs=1, k=8, batch=256), width=64, general=4_000, most=1.0, controls=3, shuffles=5)


def test_a_component_that_knows_all_kinds_is_found_and_stands_above_chance(generator: torch.Generator) -> None:
    pairs = [Pair(kind, "", "") for kind in "ab" for _ in range(200)]
    rows = Tokens.of(torch.ones(400, 1, dtype=torch.long))
    names = Names(pairs, rows, rows, torch.rand(400, generator=generator) < 0.5)
    first, second = (torch.rand(400, 30, generator=generator) < 0.3 for _ in range(2))
    first[:, 7], second[:, 7] = True, torch.rand(400, generator=generator) < 0.2  # all kinds
    first[:200, 8], second[:200, 8] = True, False  # one kind
    found = scored(first, second, names, torch.ones(30, dtype=torch.bool), 50, generator)
    assert found[ALL].component == 7 and found[ALL].held_out == pytest.approx(0.8, abs=0.1)
    assert found["a"].component == 8 and found["b"].component == 7 and found["a"].held_out == 1
    assert all(best.by_chance.abs().max() < 0.4 and best.above > 0.3 for best in found.values())
    assert found[ALL].held_out <= min(found["a"].held_out, found["b"].held_out)


def test_where_all_fire_on_ordinary_text_there_is_nothing_to_choose_from() -> None:
    with pytest.raises(Refusal, match="all 30 components are active on more than 0% of ordinary text"):
        refuse_none(torch.zeros(30, dtype=torch.bool), replace(TINY, most=0.0))


def test_the_study_runs_at_toy_size(tmp_path: Path) -> None:
    report = Entities(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({claim.name for claim in report.claims}) == len(report.claims) == 9
    check = next(claim for claim in report.claims if claim.name.startswith("real names are more finished"))
    assert check.ok  # the specimen's, whatever the autoencoder
