"""The study of IOI: places, names drawn anew, what is held; it runs on a toy, and is skipped where GPT-2 is not."""

from pathlib import Path

import pytest
import torch

from microtome.core.errors import Absent
from microtome.studies.ioi import (
    AFTER_FIRST,
    END,
    GPT2_HEADS,
    IOI,
    SECOND,
    Kept,
    Size,
    demo_prompts,
    held,
    outside,
    places_of,
    three_names,
)
from microtome.studies.study import Setting
from microtome.toys.talker import Lessons, Talker
from tests.studies.sums import Silent

TINY = Lessons(d=16, heads=2, neurons=24, prompts=200, batch=8, steps=3)


@pytest.fixture(scope="module")
def talker() -> Talker:
    return Talker("ioi", TINY, 0)


def test_places_are_where_the_subject_stands(talker: Talker, generator: torch.Generator) -> None:
    pairs = talker.pairs(12, generator)
    at = places_of(pairs)
    for i, (ids, wrong) in enumerate(zip(pairs.clean.ids.tolist(), pairs.wrong.tolist(), strict=True)):
        found = [j for j, token in enumerate(ids) if token == wrong]
        assert found == [int(at[AFTER_FIRST][i]) - 1, int(at[SECOND][i])]
        assert int(at[END][i]) == len(ids) - 1


def test_three_names_are_three_and_all_else_stays(talker: Talker, generator: torch.Generator) -> None:
    pairs = talker.pairs(12, generator)
    other = three_names(pairs, generator)
    names = set(torch.cat((pairs.right, pairs.wrong)).tolist())
    for was, now in zip(pairs.clean.ids.tolist(), other.ids.tolist(), strict=True):
        assert len({t for t in now if t in names}) == 3
        assert all(a == b for a, b in zip(was, now, strict=True) if a not in names)


@torch.no_grad()
def test_a_head_that_is_kept_is_kept_at_its_place_alone(talker: Talker, generator: torch.Generator) -> None:
    model, pairs = talker.model, talker.pairs(4, generator)
    sites = model.sites("z.*")
    found, clean = model.run(three_names(pairs, generator), read=sites), model.run(pairs.clean, read=sites)
    circuit = [Kept(0, 1, SECOND)]
    left = model.run(pairs.clean, read=sites, edit=held(outside(found, "zero"), circuit, pairs, everywhere=False))
    for row, column in enumerate(places_of(pairs)[SECOND].tolist()):
        torch.testing.assert_close(left["z.0"][row, column, 1], clean["z.0"][row, column, 1])
        assert left["z.0"][row].count_nonzero() == clean["z.0"][row, column, 1].count_nonzero()
    assert not left["z.1"].any()
    means = outside(found, "mean")
    torch.testing.assert_close(means["z.0"][2], found["z.0"].mean(0))
    everything = [Kept(layer, head, END) for layer in (0, 1) for head in (0, 1)]
    whole = model.run(pairs.clean, read=["logits"], edit=held(means, everything, pairs, everywhere=True))
    torch.testing.assert_close(whole["logits"], model.module(pairs.clean.ids))


def test_there_are_26_heads_and_eight_prompts() -> None:
    heads = [head for heads in GPT2_HEADS.values() for head in heads.split()]
    assert len(heads) == len(set(heads)) == 26
    assert len({p.clean for p in demo_prompts()}) == 8
    assert all(p.clean.count(p.wrong[0]) == 2 and p.clean.count(p.right[0]) == 1 for p in demo_prompts())


def test_the_study_runs_on_a_toy(tmp_path: Path) -> None:
    tiny = Size(lessons=TINY, pairs=12, lost=1.5, draws=2, edge_pairs=3)
    report = IOI(quick=tiny).run(Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in report.claims}) == len(report.claims) == 7


def test_without_gpt2_it_is_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Absent, match="needs GPT-2 when it is asked of 'no/such-model'"):
        IOI().run(Setting(tmp_path, model="no/such-model"), Silent())
