"""In IPython a noun at the end of a cell shows itself, with no word about display; outside, no display is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
CELLS = (
    "import microtome as mt, torch\nfrom microtome.core.linear import Linear\n"
    "site = mt.Site('here')\nx = torch.eye(4)\nparts = Linear(site, site, x, x)",
    "parts[3]",
    "mt.show(mt.zero(site))",
    "[site]",
)


@pytest.fixture(scope="module")
def outputs() -> list[list[dict]]:
    """What each cell put out, in a kernel of its own."""
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    return [cell.outputs for cell in book.cells]


def test_a_component_at_the_end_of_a_cell_is_its_card(outputs) -> None:
    data = outputs[1][0]["data"]
    assert "<h4>component 3 of Linear</h4>" in data["text/html"]
    assert data["text/plain"].startswith("component 3 of Linear\nreads `here`")


def test_show_displays(outputs) -> None:
    assert "zero here" in outputs[2][0]["data"]["text/html"]


def test_a_list_stays_a_list(outputs) -> None:
    assert outputs[3][0]["data"]["text/plain"] == "[`here`, with axes batch pos d]"


def test_outside_of_ipython_no_display_is_loaded() -> None:
    code = "import sys, microtome; sys.exit('microtome.notebook' in sys.modules or 'IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ).returncode == 0
