"""A folder with one finished run, one that stopped, one that is broken; the app that shows it; and a browser.

A module that shows other runs has a fixture `folder` of its own.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.browser.sample import write_run, write_unfinished
from tests.browser.served import TOKEN, admitted, app_of, cards, served

ROOT = Path(__file__).parents[2]
CHROMIUM = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if p.exists()), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
PATIENCE = 20_000  # ms; a page answers in a tenth of a second, a busy machine may not


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "specimen-8")
    write_unfinished(root / "deeper" / "specimen-16")
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text('{"schema": "microtome/ru')
    return root


@pytest.fixture(scope="module")
def app(folder: Path) -> FastAPI:
    return app_of(folder)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """A client that is let in."""
    return admitted(app)


@pytest.fixture(scope="module")
def runs(app: FastAPI) -> dict[str, dict]:
    """The list of runs, by name."""
    return cards(admitted(app))


@pytest.fixture
def done(runs: dict[str, dict]) -> str:
    """The address of the finished run's part of the API."""
    return "/api/runs/" + next(card["id"] for card in runs.values() if card["state"] == "done")


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    """The app on a real port, for a real browser."""
    with served(app) as place:
        yield place


@pytest.fixture(scope="session")
def built() -> None:
    """The pages as their sources stand now."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    try:
        hatch_build.build(ROOT)
    except hatch_build.NoPage as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def chromium(built: None) -> Iterator:
    if CHROMIUM is None:
        pytest.skip("chromium is absent: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address: str) -> Iterator:
    """A page that is let in. Afterwards: nothing went wrong in it, and nothing was asked of any other server."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    wrong, elsewhere = [], []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith(address + "/") else None)
    page.goto(f"{address}/?token={TOKEN}")
    yield page
    page.close()
    assert elsewhere == []
    assert [line for line in wrong if "the server responded with a status of" not in line] == []


@pytest.fixture(scope="module")
def at(runs: dict[str, dict]) -> dict[str, str]:
    """The hash of each run's page, by its name."""
    return {name: f"#/run/{card['id']}/{card['shows']}" for name, card in runs.items()}
