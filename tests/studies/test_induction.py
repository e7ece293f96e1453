"""The study of induction: its network and its rows."""

from pathlib import Path

import torch

from microtome.circuits.direct_logits import direct_logits
from microtome.studies.induction import Induction, Size, network, repeating
from microtome.studies.study import Setting
from microtome.toys.induction import sites
from tests.studies.sums import Silent

TINY = Size(vocabulary=12, d=8, heads=2, length=14, periods=(5, 6), batch=4, steps=4, looks=2)


def test_rows_come_again_with_a_period_of_their_own(generator: torch.Generator) -> None:
    rows = repeating(TINY, 20, generator).ids
    for row in rows.tolist():
        period = next(p for p in (5, 6) if row[p] == row[0])
        assert len(set(row[:period])) == period
        assert all(a == b for a, b in zip(row, row[period:], strict=False))
    assert {next(p for p in (5, 6) if row[p] == row[0]) for row in rows.tolist()} == {5, 6}


@torch.no_grad()
def test_its_sites_are_what_their_names_say(tmp_path: Path, generator: torch.Generator) -> None:
    model, rows = network(TINY, Setting(tmp_path)), repeating(TINY, 3, generator)
    trace = model.run(rows, read=[model.site(n) for n in sites()])
    torch.testing.assert_close(trace["resid_post.1"], trace["resid_pre.1"] + trace["attn_out.1"])
    torch.testing.assert_close(torch.einsum("bhqk,bkhd->bqhd", trace["pattern.1"], trace["v.1"]), trace["z.1"])
    torch.testing.assert_close(trace["logits"], model.module(rows.ids))
    direct = direct_logits(model, rows, rows.ids[:, 0])
    torch.testing.assert_close(
        direct.values.sum(0), trace["logits"].gather(-1, rows.ids[:, :1, None].expand(3, 14, 1))[..., 0]
    )
    early = model.module(rows.ids[:, :7])
    torch.testing.assert_close(trace["logits"][:, :7], early)  # no token sees a later one


def test_the_study_runs(tmp_path: Path) -> None:
    report = Induction(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in report.claims}) == len(report.claims) == 6
