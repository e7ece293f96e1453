"""The first notebook runs from its first cell to its last, and says one sentence before each."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first_look.ipynb"


@pytest.fixture(scope="module")
def book() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_ten_cells_each_after_one_sentence(book) -> None:
    title, *rest = book.cells
    assert title.cell_type == "markdown"
    assert [cell.cell_type for cell in rest] == ["markdown", "code"] * 10
    for cell in rest[::2]:
        assert len(re.findall(r"[.!?](?:\s|$)", cell.source)) == 1, cell.source


@pytest.mark.timeout(900)
def test_it_runs(book, tmp_path: Path) -> None:
    from nbclient import NotebookClient

    executed = NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [cell.outputs for cell in executed.cells if cell.cell_type == "code"]
    assert all(outputs for outputs in shown)
