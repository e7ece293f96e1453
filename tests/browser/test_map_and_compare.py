"""The map that is drawn around, components found by a passage, and two dictionaries side by side."""

import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from microtome.cli.compare import by_activity
from microtome.store.catalog import Catalog
from microtome.store.records import Alike, Compared, Comparison, Run
from tests.browser.reading import everybody_can_read, expect, fit_a_narrow_screen, opened, rows
from tests.browser.sample import write_run

SAID = ("fires on <b>loops</b>", "imports", "after a string", None)


def side(name: str) -> Compared:
    density = [0.1, 0.01, 0.001, 0.0]
    return Compared(name=name, model="specimen", site="resid_post.2", density=density, said=list(SAID))


def write_comparison(folder: Path) -> None:
    alike = Alike(
        partner=[2, 1, 0, 3], nearness=[0.9, 0.8, 0.3, 0.99], mutual=[True, True, False, True], least=0.7, shared=0.5,
        chance=0.4, shared_by_chance=0.0,
    )  # fmt: skip
    active = alike.model_copy(update={"partner": [1, -1, 0, -1], "chance": None, "shared_by_chance": None})
    Comparison(
        first=side("seed-0"), second=side("elsewhere"), written=alike, active=active, notes=["a note"], seconds=1
    ).write(folder)
    Run(
        command="compare", arguments={}, model="specimen", site="", created="2026-09-01T08:00:00Z", version="0",
        stage="done",
    ).write(folder)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compared")
    write_run(root / "seed-0", 60)
    write_comparison(root / "two")
    return root


# ---------------------------------------------------------------- the server


def test_a_side_that_is_on_the_shelf_has_its_id(client: TestClient, runs: dict[str, dict]) -> None:
    found = client.get(f"/api/runs/{runs['two']['id']}/compare").json()
    assert found["first"]["run"] == runs["seed-0"]["id"] and found["second"]["run"] is None
    assert client.get(f"/api/runs/{runs['seed-0']['id']}/compare").status_code == 409


def test_a_passage_is_asked_for_by_address(client: TestClient, runs: dict[str, dict]) -> None:
    at = f"/api/runs/{runs['seed-0']['id']}/search/example"
    found = client.get(at, params={"text": "import"}).json()
    assert found["components"] and found["weight"] == sorted(found["weight"], reverse=True)
    assert client.get(at, params={"text": "no such words are there"}).json()["total"] == 0


def test_one_catalogue_beside_itself_leaves_every_component_out(folder: Path) -> None:
    found = by_activity([Catalog(folder / "seed-0" / "catalog")] * 2, 0.7, [])
    assert found is not None and (np.array(found.partner) != np.arange(len(found.partner))).all()


# ---------------------------------------------------------------- the pages


def test_a_line_around_part_of_the_map_narrows_the_table_and_stands_in_the_address(page, at) -> None:
    opened(page, at["seed-0"].removesuffix("/dictionary"))
    page.get_by_role("button", name="Map of directions").click()
    plane = page.get_by_role("img", name=re.compile("Map of 58 live components"))
    expect(plane).to_be_visible()
    box = plane.bounding_box()
    corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98)]
    for number, (x, y) in enumerate(corners):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    status = page.get_by_role("status").first
    expect(status).to_have_text(re.compile(r"\d+ of 60 components"))
    chosen = int(status.inner_text().split()[0])
    assert 0 < chosen < 58 and "lasso=" in page.url
    page.reload()
    expect(page.get_by_role("status").first).to_have_text(re.compile(f"^{chosen} of 60 components"))
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_role("status").first).to_have_text("60 components")


def test_a_passage_lists_what_fires_on_it(page, at) -> None:
    opened(page, at["seed-0"].removesuffix("/dictionary"))
    page.get_by_label("Passage it fires on").fill("import")
    expect(page.get_by_role("status").first).to_have_text(re.compile(r"\d+ of 60 components"))
    assert "example=import" in page.url


def test_components_stand_beside_their_nearest(page, at) -> None:
    opened(page, at["two"])
    expect(page.get_by_text("50.0% of the first")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("3 of 3 live components")
    expect(rows(page).first).to_contain_text("fires on <b>loops</b>")
    page.get_by_label("Only those that have no match").check()
    expect(page.get_by_role("status")).to_have_text("1 of 3 live components")
    page.get_by_label("Only those that have no match").uncheck()
    page.get_by_role("button", name="When they fire").click()
    expect(rows(page).nth(1)).to_contain_text("None")
    assert "by=active" in page.url and page.title() == "Compare · Microtome"
    page.get_by_label("Words of either explanation").fill("loops")
    expect(page.get_by_role("status")).to_have_text("2 of 3 live components")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_them(page, at, theme: str) -> None:
    everybody_can_read(page, [at["two"], at["seed-0"].removesuffix("/dictionary") + "?plot=map"], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, at) -> None:
    fit_a_narrow_screen(page, [at["two"], at["seed-0"].removesuffix("/dictionary") + "?plot=map"])
