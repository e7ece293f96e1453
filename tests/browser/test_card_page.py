"""The card of a dictionary: its scores beside those of its baselines, its facts, and the way to each component."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from microtome.store.records import Card, CardRow, Fact, Run, Scored
from tests.browser.reading import everybody_can_read, expect, fit_a_narrow_screen, opened, rows
from tests.browser.sample import COMPONENTS, write_run

ROWS = (
    ("explained variance", "reconstruction", "high", 0.9, 0.4),
    ("L0", "activity", "none", 32.0, 32.0),
    ("cross-entropy lost", "faithfulness", "low", -0.01, 1.5),
    ("dead", "activity", "low", None, 0.0),
)


def write_card(folder: Path, dictionary: str, width: int, stage: str = "done") -> None:
    def scored(found: float | None) -> Scored:
        return Scored(found=found) if found is None else Scored(found=found, low=found - 0.05, high=found + 0.05)

    def row(name: str, group: str, best: str, own: float | None, random: float) -> CardRow:
        return CardRow.model_validate({
            "name": name, "group": group, "about": f"what {name} is", "best": best,
            "scores": {"own": scored(own), "random": scored(random)},
        })  # fmt: skip

    facts = [
        Fact(
            name=name, tokens=10, component=component, sign=1, threshold=0.5, chance=scored(0.1), linear=scored(0.9),
            scores={"own": scored(own), "random": scored(0.2)},
        )
        for name, component, own in (("in a comment", 2, 0.5), ("number", 1, 0.85))
    ]  # fmt: skip
    rows = [row(*one) for one in ROWS]
    rows[0].scores["own"].fits = Scored(found=0.89, low=0.88, high=0.9)
    Card(
        dictionary=dictionary, model="specimen", site="resid_post.2", width=width, baselines={"random": "of chance"},
        training_tokens=100, held_out_tokens=50, documents=3, stage=stage, seconds=61, processor_seconds=60,
        peak_memory_bytes=1, rows=rows, facts=facts, notes=["a label is left out"],
    ).write(folder)  # fmt: skip
    Run(
        command="eval", arguments={}, model="specimen", site="", created="2026-09-01T08:00:00Z", version="0",
        stage="done",
    ).write(folder)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "own")
    write_card(root / "card", "runs/own", COMPONENTS)
    write_card(root / "strange", "elsewhere/own", COMPONENTS + 1, stage="splice")
    return root


def test_a_card_knows_the_run_of_its_dictionary_and_no_other(client: TestClient, runs: dict[str, dict]) -> None:
    assert {runs[name]["shows"] for name in ("card", "strange")} == {"card"}
    found = {name: client.get(f"/api/runs/{runs[name]['id']}/card").json() for name in ("card", "strange")}
    assert found["card"]["run"] == runs["own"]["id"] and found["strange"]["run"] is None
    assert client.get(f"/api/runs/{runs['own']['id']}/card").status_code == 409


def test_scores_stand_beside_their_baselines_and_facts_lead_to_components(page) -> None:
    page.get_by_role("link", name="card", exact=True).click()
    bars = page.get_by_role("img", name="explained variance: this dictionary 0.9 [0.85, 0.95], random 0.4 [0.35, 0.45]")
    expect(bars).to_be_visible()
    expect(page.get_by_text("over seeds 0.89 [0.88, 0.9]")).to_be_visible()
    expect(page.get_by_role("img", name="dead: random 0")).to_be_visible()
    expect(page.get_by_text("One component tells 1 of 2 facts")).to_be_visible()
    facts = page.get_by_role("region", name="Facts")
    expect(facts.locator("tbody tr th").first).to_have_text("number")
    facts.get_by_role("link", name="1", exact=True).click()
    expect(page.locator("h1")).to_be_visible()
    assert "/component/1" in page.url


def test_a_card_that_was_cut_off_says_so(page, at) -> None:
    opened(page, at["strange"])
    expect(page.get_by_text("it was written after the stage “splice”")).to_be_visible()
    expect(page.get_by_role("region", name="Facts").get_by_role("link")).to_have_count(0)
    assert rows(page).count() == len(ROWS) + 2


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_it(page, at, theme: str) -> None:
    everybody_can_read(page, [at["card"]], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, at) -> None:
    fit_a_narrow_screen(page, [at["card"]])
