"""The study over all recipes runs on a small network, and has them all."""

from pathlib import Path

from microtome.dictionaries import recipes
from microtome.dictionaries.recipes import Recipe
from microtome.notebook.page import Table
from microtome.studies.architectures import ENTRANTS, Architectures, Size, words
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(tokens=1200, width=48, k=4, batch=60, held_out=6, spliced=2)


def test_every_recipe_enters() -> None:
    named = {n for n, f in vars(recipes).items() if getattr(f, "__annotations__", {}).get("return") is Recipe}
    assert {name.split(",")[0] for name in ENTRANTS} == named


def test_every_recipe_says_what_it_is_and_whose() -> None:
    assert all(words(name).endswith((".", ")")) for name in ENTRANTS)


def test_the_study_runs_on_a_small_network(llama_folder: Path, stories: Path, tmp_path: Path) -> None:
    setting = Setting(tmp_path, str(llama_folder), [str(stories)], quick=True)
    report = Architectures(quick=TINY).run(setting, Silent())
    table = report.pieces[-1]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == [*ENTRANTS, "random directions", "principal components"]
    assert len({c.name for c in report.claims}) == len(report.claims) == 5
