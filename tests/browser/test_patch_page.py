"""The page of a patching grid: its numbers by keys, and as a table."""

from pathlib import Path

import pytest

from tests.browser.graph_files import small_graph, small_patch, write
from tests.browser.reading import everybody_can_read, expect, fit_a_narrow_screen, opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write(root / "moved", "patch", small_patch())
    write(root / "texas", "graph", small_graph())
    return root


def test_the_grid_shows_its_numbers_on_focus_and_as_a_table(page, at) -> None:
    opened(page, at["moved"])
    first = page.locator("rect[tabindex='0']")
    first.focus()
    expect(page.get_by_role("tooltip")).to_have_text("−0.500 at resid_post.0, position 0 “<bos>”")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tooltip")).to_have_text("0.600 at resid_post.2, position 1 “The”")
    expect(page.get_by_role("img", name="Colours from −1.00 over 0 to 1.00")).to_be_visible()
    expect(page.locator("tbody tr").nth(2).locator("td").nth(5)).to_have_text("1.00")
    expect(page.get_by_text("The capital of Ohio")).to_be_visible()


def test_what_is_not_there_is_told(page, at) -> None:
    opened(page, at["texas"].replace("/graph", "/patch"))
    expect(page.get_by_text("This run has no patch.json.")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(page, at, theme: str) -> None:
    everybody_can_read(page, [at["moved"]], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, at) -> None:
    fit_a_narrow_screen(page, [at["moved"]])
