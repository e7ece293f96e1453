"""Parts of weights, studies and dynamics: what the server says of their files, and what their pages show and keep."""

import re
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from microtome.store.records import Claim, Dynamics, Endured, PartedWeight, Result, Run, Stretch, TakenApart
from microtome.store.tensors import write_tensors
from tests.browser.reading import everybody_can_read, expect, fit_a_narrow_screen, opened

DRAWN = "<p style='color:inherit'>drawn</p>"


def write_study(folder: Path) -> None:
    claims = [
        Claim(name="a mean", expected=1.0, tolerance=0.1, found=0.95, ok=True, source="paper"),
        Claim(name="a <b>bound</b>", expected="at least 2", tolerance=0, found=None, ok=False, source="budget"),
    ]
    Result(
        study="superposition", paper="A paper, 2022", seconds=61, claims=claims, arguments={"quick": True}, version="0"
    ).write(folder)
    (folder / "page.html").write_text(f"<!doctype html><html lang=en><title>t</title><body>{DRAWN}</body></html>")


def write_dynamics(folder: Path) -> None:
    steps = [0, 100, 200, 300]
    curves = {"loss": [4.0, 2.0, 0.01, None], "size/1": [1, 2, 3, 4], "size/2": [4, 3, 2, -1]}
    Dynamics(
        model="addition", about="It grokked.", steps=steps, curves=curves, units={"loss": "nats", "size": "length"},
        phases=[Stretch(name="learning", first=0, last=100), Stretch(name="cleanup", first=100, last=300)],
        arguments={}, seconds=1, version="0",
    ).write(folder)  # fmt: skip


def weight(name: str, reads: int, writes: int) -> PartedWeight:
    return PartedWeight(
        name=name, reads=reads, writes=writes, size=[1.0, 2.0, 0.5], activation=[0.3, 0.6, 0.9],
        importance=[0.4, 0.2, 0.0], matters=[0.5, 0.25, 0.0],
    )  # fmt: skip


def write_parts(folder: Path, texts: list[list[str]]) -> None:
    endured = Endured(
        unmasked=0.0, importance=1e-5, rounded={0.0: 1e-6, 0.5: 1e-4}, stochastic=2e-5, adversarial={20: 3e-4},
        nothing=0.05, l0=1.2, unfaithful=1e-9,
    )  # fmt: skip
    TakenApart(
        model="toy", method="spd", settings={}, importance_is="learnt by gates", distance="squared", losses=[1.0, 0.5],
        kept=1, rows=6, weights=[weight("encoder", 2, 3), weight("decoder", 3, 2)], endured=endured,
        inputs=[] if texts else ["feature 0", "feature 1"], texts=texts, seconds=1,
    ).write(folder)  # fmt: skip
    held = {"rows": torch.tensor([[0.0, 1.0], [0.5, 0.25], [0, 0], [1, 1], [0.1, 0.2], [0, 0.3]])}
    for name, reads, writes in (("encoder", 2, 3), ("decoder", 3, 2)):
        example = torch.tensor([[1, 4, -1], [0, -1, -1], [-1, -1, -1]])
        held |= {
            f"{name}/read": torch.arange(3.0 * reads).view(3, reads) - 2, f"{name}/write": torch.ones(3, writes),
            f"{name}/example": example, f"{name}/example_activation": example / 10, f"{name}/example_importance":
            (example >= 0).float(), f"{name}/alone": torch.tensor([[1.0, 0.0], [0.0, 0.9], [0.0, 0.0]]),
        }  # fmt: skip
    held["partner"] = torch.tensor([[3, -1], [4, -1], [-1, -1], [0, -1], [1, -1], [-1, -1]])
    held["together"] = torch.full((6, 2), 0.75)
    write_tensors(folder / "parts.safetensors", held)
    Run(
        command="decompose", arguments={}, model="toy", site="", created="2026-09-01T08:00:00Z", version="0",
        stage="done",
    ).write(folder)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_study(root / "geometry")
    write_dynamics(root / "geometry" / "seed-0")
    write_parts(root / "parts", [])
    write_parts(root / "words", [["a", " b", " c"], ["d", "\n", " f"]])
    (root / "broken").mkdir()
    (root / "broken" / "result.json").write_text("{")
    return root


# ---------------------------------------------------------------- the server


def test_results_are_runs_without_a_run_json(runs: dict[str, dict]) -> None:
    assert {name: (card["shows"], card["state"]) for name, card in runs.items()} == {
        "broken": ("dictionary", "unreadable"), "geometry": ("study", "done"), "geometry/seed-0": ("dynamics", "done"),
        "parts": ("parts", "done"), "words": ("parts", "done"),
    }  # fmt: skip
    assert "result.json cannot be read" in runs["broken"]["message"]


def test_a_study_is_its_claims_and_its_page_can_do_nothing(client: TestClient, runs: dict[str, dict]) -> None:
    found = client.get(f"/api/runs/{runs['geometry']['id']}/study").json()
    assert [claim["expected"] for claim in found["claims"]] == ["1 ± 0.1", "at least 2"] and found["drawn"]
    drawn = client.get(f"/api/runs/{runs['geometry']['id']}/page.html")
    policies = drawn.headers.get_list("content-security-policy")
    assert len(policies) == 1 and policies[0].startswith("sandbox; default-src 'none'") and DRAWN in drawn.text
    assert "script" not in policies[0] and "frame-ancestors 'self'" in policies[0]
    assert drawn.headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/api/runs/{runs['parts']['id']}/page.html").status_code == 409


def test_profiles_are_gathered_from_curves(client: TestClient, runs: dict[str, dict]) -> None:
    found = client.get(f"/api/runs/{runs['geometry/seed-0']['id']}/dynamics").json()
    assert [curve["name"] for curve in found["curves"]] == ["loss"]
    (size,) = found["profiles"]
    assert size["members"] == ["1", "2"] and size["values"][3] == [4, -1] and size["unit"] == "length"


def test_parts_are_counted_through_all_weights(client: TestClient, runs: dict[str, dict]) -> None:
    at = f"/api/runs/{runs['parts']['id']}/parts"
    found = client.get(at).json()
    assert [one["alive"] for one in found["weights"]] == [2, 2] and found["weights"][0]["by_input"][1] == [0.0, 0.9]
    card = client.get(f"{at}/4").json()
    assert (card["weight"], card["index"], card["partners"]) == (1, 1, [{"part": 1, "together": 0.75}])
    assert card["read"] == [1, 2, 3]
    (row,) = card["rows"]
    assert row["entries"] == [{"name": "feature 1", "value": 1.0, "here": False}]
    assert client.get(f"{at}/6").status_code == 404
    words = client.get(f"/api/runs/{runs['words']['id']}/parts/0").json()
    assert [e["name"] for e in words["rows"][1]["entries"] if e["here"]] == ["\n"]  # row 4: the second of window 1


# ---------------------------------------------------------------- the pages


def test_a_study_with_its_page_in_a_frame(page) -> None:
    page.get_by_role("link", name="geometry", exact=True).click()
    expect(page.get_by_text("1 of 2 claims fail.")).to_be_visible()
    expect(page.get_by_role("rowheader", name="a <b>bound</b>")).to_be_visible()
    expect(page.frame_locator("iframe").get_by_text("drawn")).to_be_visible()
    assert page.title() == "Study · Microtome"


def test_the_slider_over_checkpoints_stands_in_the_address(page, at) -> None:
    opened(page, at["geometry/seed-0"])
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuetext", "step 300, cleanup")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("step=200"))
    expect(page.get_by_role("img", name=re.compile("loss over 300 steps: 0.0100 at step 200"))).to_be_visible()
    page.reload()
    expect(
        page.get_by_role("img", name=re.compile("size at step 200: 2 numbers, the largest 3.00 at 1"))
    ).to_be_visible()
    page.locator("h1").click()
    page.keyboard.press("k")
    expect(page).to_have_url(re.compile("step=100"))
    page.get_by_role("button", name="End of cleanup").click()
    expect(slider).to_have_attribute("aria-valuetext", "step 300, cleanup")


def test_parts_are_walked_with_keys_and_lead_to_their_partners(page, at) -> None:
    opened(page, at["parts"])
    expect(page.get_by_text("Adversarial, 20 steps")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Importance of 2 parts on 2 inputs"))).to_be_visible()
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="encoder, part 0")).to_be_visible()
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile("part=1"))
    page.reload()
    expect(page.get_by_role("heading", name="encoder, part 1")).to_be_visible()
    page.get_by_role("button", name="decoder, part 1").click()
    expect(page.get_by_role("heading", name="Parts of decoder")).to_be_visible()
    page.get_by_role("button", name="Show also the 1 that never matter").click()
    expect(page.get_by_role("button", name="Part 2")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("No part is chosen.")).to_be_visible()


PAGES = ("geometry", "geometry/seed-0", "parts", "words")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_read_them(page, at, theme: str) -> None:
    everybody_can_read(page, [*(at[name] for name in PAGES[:3]), at["words"] + "?part=0"], theme)


def test_a_narrow_screen_is_not_scrolled_sideways(page, at) -> None:
    fit_a_narrow_screen(page, [at[name] + ("?part=1" if name == "parts" else "") for name in PAGES])
