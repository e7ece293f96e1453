"""The README says what is so: its Python runs, its links lead somewhere, its commands exist."""

import re
from pathlib import Path

import pytest

import microtome as mt

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/commands.md", "docs/architecture.md"]
PAGES += ["docs/formats.md", "docs/training.md", "docs/scale.md", "docs/studies.md"]
PAGES += [
    "docs/recipes.md",
    "docs/circuits.md",
    "docs/evals.md",
    "docs/parameters.md",
    "docs/performance.md",
    "docs/directions.md",
]


def python(number: int) -> str:
    """One of the README's blocks of Python, counted from 0."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[number]


def test_the_page_of_directions_runs(capsys) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/directions.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    exec(compile(code, "directions.md", "exec"), {})  # noqa: S102
    assert "area 1.00" in capsys.readouterr().out


def test_the_first_ten_lines_of_python_run(capsys) -> None:
    assert len(python(0).splitlines()) <= 11
    exec(compile(python(0), "README.md", "exec"), {})  # noqa: S102
    shown = capsys.readouterr().out
    assert "resid_post.3" in shown and "zero attn_out.0" in shown and "def add(first, second)" in shown


def test_the_loop_that_fits_runs_at_a_hundredth_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    smaller = python(1)
    for full, small in (("2_000_000", "20_000"), ("100_000", "1_000"), ("4096", "512"), ("2048", "1024")):
        assert full in smaller
        smaller = smaller.replace(full, small)
    exec(compile(smaller, "README.md", "exec"), {"mt": mt, "model": mt.load("specimen")})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 20_000 // 1024
    assert len(mt.load_any("matryoshka")) == 512


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!https?:)[^)#]+)[^)]*\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_commands_are_those_that_exist() -> None:
    from microtome.cli import main

    known = {name for name in main.app if not name.startswith("-")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `microtome (\w+)", readme, re.MULTILINE)) == known
