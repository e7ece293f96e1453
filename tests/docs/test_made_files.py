"""What is made from other files equals what would be made now."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_checkout() -> bool:
    return (
        shutil.which("git") is not None
        and subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not is_checkout(), reason="the tree is listed by git, and this is no checkout")
def test_the_readme_shows_the_tree_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == script("file_tree").with_tree(readme), "run: python scripts/file_tree.py"


def test_schemas_are_those_of_the_records() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "schemas").glob("*.json")}
    assert written == script("export_schemas").schemas(), "run: python scripts/export_schemas.py"


def test_figures_become_a_table(tmp_path: Path) -> None:
    from tests.browser import sample

    table = script("figures").table(sample.summary())
    assert "| **this dictionary** | 0.893 | 96.7% | 31.7 | 4.0% | 62.0% |" in table
    assert "1284 s, peak memory 2.1 GB" in table
