"""A circuit run: what the server says of its file, and what its page shows and keeps."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from microtome.store.records import Circuit, FaithfulnessCurve, Judged, Overlap, Run
from tests.browser.reading import everybody_can_read, expect, fit_a_narrow_screen, opened, rows

EDGES = {"input->m0": 3.0, "m0->a1.h0<v>": 2.0, "a1.h1->logits": -1.5, "a0.h1->a1.h0<q>": 1.0, "a1.h0->logits": 0.5}
NODES = {"m1": 2.0, "a0.h1": -1.0, "a1.h0": 0.5}


def record(kind: str, units: dict[str, float], count: int) -> Circuit:
    judged = Judged(
        faithfulness=0.91, cpr=0.8, cmd=0.2, random_mean=0.1, random_low=-0.2, random_high=0.4, p=0.05,
        completeness_mean=0.1, completeness_worst=0.3, completeness_worst_set=list(units)[:1],
        minimality={name: abs(score) / 10 for name, score in units.items()},
        stability=Overlap(mean=0.7, low=0.5, high=1.0, stable=False),
    )  # fmt: skip
    curve = FaithfulnessCurve(
        counts=[0, 1, 2, 4, 8], faithfulness=[0, 0.4, 0.8, 0.9, 1], low=[0, -0.1, 0, 0.2, 1], mean=[0, 0, 0.1, 0.4, 1],
        high=[0, 0.1, 0.2, 0.6, 1],
    )  # fmt: skip
    return Circuit(
        model="toy", task="pronoun", method="eap-ig", kind=kind, measure="logit difference", training_pairs=8,
        held_out_pairs=4, example=["Lily ran.", "Tim ran.", " She", " He"], whole=3.9, nothing=-3.9, layers=2, heads=2,
        kv_heads=1, total=8, units=list(units), scores=list(units.values()), count=count, reached=3, curve=curve,
        judged=judged, seconds=1.0,
    )  # fmt: skip


def write(folder: Path, held: Circuit | None) -> None:
    run = Run(
        command="circuit", arguments={}, model="toy", site="", created="2026-09-01T08:00:00Z", version="0", stage="done"
    )
    run.write(folder)
    if held:
        held.write(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("circuits")
    write(root / "edges", record("edges", EDGES, 4))
    write(root / "nodes", record("nodes", NODES, 2))
    write(root / "stopped", None)
    write(root / "foreign", record("edges", {"a9.h9->logits": 1.0}, 1))
    return root


def test_units_are_taken_apart_into_the_places_of_the_network(client: TestClient, runs: dict[str, dict]) -> None:
    assert {name: card["state"] for name, card in runs.items()} == {
        "edges": "done", "nodes": "done", "stopped": "unfinished", "foreign": "done",
    }  # fmt: skip
    found = client.get(f"/api/runs/{runs['edges']['id']}/circuit").json()
    places = [place["name"] for place in found["places"]]
    assert places == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    ends = {one["name"]: (places[one["source"]], places[one["target"]], one["role"]) for one in found["units"]}
    assert ends["m0->a1.h0<v>"] == ("m0", "a1.h0", "v")
    assert ends["a1.h1->logits"] == ("a1.h1", "logits", "")
    nodes = client.get(f"/api/runs/{runs['nodes']['id']}/circuit").json()
    assert [(one["target"], one["score"]) for one in nodes["units"]] == [(None, 2.0), (None, -1.0), (None, 0.5)]


def test_what_cannot_be_shown_is_a_sentence(client: TestClient, runs: dict[str, dict]) -> None:
    for name, why in (("stopped", "Its circuit.json is not there"), ("foreign", "a9.h9->logits")):
        answer = client.get(f"/api/runs/{runs[name]['id']}/circuit")
        assert answer.status_code == 409
        assert why in answer.json()["detail"]


# ---------------------------------------------------------------- the page


def test_the_runs_page_leads_to_it_and_the_slider_stands_in_the_address(page) -> None:
    page.get_by_role("link", name="edges").click()
    expect(page.get_by_role("img", name=re.compile("4 of 8 edges"))).to_be_visible()
    expect(page.get_by_text("unstable")).to_be_visible()
    expect(rows(page)).to_have_count(4)
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.get_by_role("img", name=re.compile("5 of 8 edges"))).to_be_visible()
    expect(page).to_have_url(re.compile("units=5"))
    page.reload()
    expect(rows(page)).to_have_count(5)
    page.get_by_role("button", name="First to reach .85: 3").click()
    expect(rows(page)).to_have_count(3)
    expect(page.get_by_role("definition").filter(has_text="0.85")).to_have_count(1)


def test_a_place_is_pinned_from_the_list_and_keeps_its_edges(page, at) -> None:
    opened(page, at["edges"])
    page.get_by_role("button", name="m0", exact=True).first.click()
    expect(page).to_have_url(re.compile("node=m0"))
    expect(rows(page)).to_have_count(2)
    page.reload()
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(4)
    page.locator("g[data-tip^='a1.h1']").click()
    expect(page).to_have_url(re.compile("node=a1.h1"))


def test_nodes_are_shown_without_edges(page, at) -> None:
    opened(page, at["nodes"])
    expect(page.get_by_role("img", name=re.compile("2 of 8 nodes"))).to_be_visible()
    assert page.locator("svg path:not(header path)").count() == 0
    expect(rows(page)).to_have_count(2)


def test_what_is_not_there_is_told(page, at) -> None:
    opened(page, at["stopped"])
    expect(page.get_by_text("This circuit cannot be shown.")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(page, at, theme: str) -> None:
    everybody_can_read(page, [at["edges"], at["nodes"] + "?node=m1"], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, at) -> None:
    fit_a_narrow_screen(page, [at["edges"], at["nodes"]])
