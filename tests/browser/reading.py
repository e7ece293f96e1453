"""What tests of pages do in a browser: go to a page, wait until it stands, and see whether everybody can read it.

A test module that needs this is skipped where playwright is absent.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.browser.conftest import PATIENCE

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
NARROW = {"width": 390, "height": 844}

expect = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install playwright").expect
expect.set_options(timeout=PATIENCE)


def opened(page, hash: str) -> None:
    page.evaluate("hash => { location.hash = hash }", hash)


def settled(page) -> None:
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_load_state("networkidle")
    expect(page.locator(".loading")).to_have_count(0)


def rows(page):
    return page.locator("tbody tr:not([aria-hidden])")


def everybody_can_read(page, hashes: Iterable[str], theme: str) -> None:
    """No page has a serious fault of accessibility in this theme, by axe-core."""
    if not AXE.exists():
        pytest.skip("axe-core is absent: run `npm ci` in web/")
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    for hash in hashes:
        opened(page, hash)
        settled(page)
        page.evaluate(AXE.read_text() + "; 0")
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'], iframes: false })")["violations"]
        grave = {
            it["id"]: [node["target"] for node in it["nodes"]]
            for it in found
            if it["impact"] in ("serious", "critical")
        }
        assert grave == {}, f"{hash} in {theme}: {json.dumps(grave)}"


def fit_a_narrow_screen(page, hashes: Iterable[str]) -> None:
    """No page of these has to be scrolled sideways on a telephone."""
    page.set_viewport_size(NARROW)
    for hash in hashes:
        opened(page, hash)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], hash
