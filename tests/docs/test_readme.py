"""The README says what is so: its Python runs, its links lead somewhere, its commands exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/commands.md", "docs/architecture.md"]
PAGES += ["docs/formats.md", "docs/training.md", "docs/scale.md", "docs/studies.md"]


def test_the_first_ten_lines_of_python_run(capsys) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(block.splitlines()) <= 11
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102
    shown = capsys.readouterr().out
    assert "resid_post.3" in shown and "zero attn_out.0" in shown and "def add(first, second)" in shown


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_commands_are_those_that_exist() -> None:
    from microtome.cli import main

    known = {name for name in main.app if not name.startswith("-")}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `microtome (\w+)", readme, re.MULTILINE)) == known
