"""A graph run and a patching run: what the server says of their files, and what a live graph answers."""

import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.browser.graph_files import TOKENS, feature, link, record, small_graph, small_patch, write, write_all
from tests.browser.sample import HOSTILE
from tests.browser.served import app_of, cards, client_of

COLUMNS = ("sources", "targets", "weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("runs"))


def asked(folder: Path, name: str, part: str) -> tuple[int, dict]:
    client = client_of(folder)
    answer = client.get(f"/api/runs/{cards(client)[name]['id']}/{part}")
    return answer.status_code, answer.json()


def test_runs_say_which_page_they_have(folder: Path) -> None:
    found = cards(client_of(folder))
    assert {name: (card["shows"], card["state"]) for name, card in found.items()} == {
        "layer-2": ("dictionary", "done"), "texas": ("graph", "done"), "crowd": ("graph", "done"),
        "moved": ("patch", "done"), "stopped": ("graph", "unfinished"),
    }  # fmt: skip
    assert "run `microtome graph` again" in found["stopped"]["message"]


def test_a_graph_is_told_as_its_file_has_it_with_the_words_of_the_dictionary_that_it_used(folder: Path) -> None:
    status, told = asked(folder, "texas", "graph")
    assert status == 200
    ids = [one["id"] for one in told["nodes"]]
    columns = zip(*(told["links"][part] for part in COLUMNS), strict=True)
    held = {(ids[source], ids[target], weight) for source, target, weight in columns}
    assert held == {(one["source"], one["target"], one["weight"]) for one in small_graph()["links"]}
    assert [one["kind"] for one in told["nodes"]] == ["token"] * 2 + ["feature"] * 3 + ["error"] + ["target"] * 2
    of = {one["id"]: one for one in told["nodes"]}
    assert (of["0_7_1"]["label"], of["0_7_1"]["run"], of["0_7_1"]["index"]) == ("says capital", None, 7)
    assert of[f"2_{HOSTILE}_5"]["label"] == "<img src=x onerror=alert(1)> in a tag"
    assert of["2_3_4"]["run"] == cards(client_of(folder))["layer-2"]["id"]
    assert told["scores"] == {"replacement": 0.41, "completeness": 0.77}
    assert told["supernodes"] == [{"name": "Capitals", "nodes": ["0_7_1"]}]
    assert (told["tokens"], told["message"]) == (TOKENS, "")


def test_a_dictionary_that_was_not_used_lends_no_words(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "layer-2", tmp_path / "layer-2")
    write(tmp_path / "texas", "graph", small_graph(), prompt="layer-3")
    _, told = asked(tmp_path, "texas", "graph")
    assert [one["run"] for one in told["nodes"]] == [None] * 8
    write(tmp_path / "texas", "graph", small_graph(), dictionaries=["layer-2", "copy"])
    shutil.copytree(folder / "layer-2", tmp_path / "copy")
    _, told = asked(tmp_path, "texas", "graph")
    assert [one["run"] for one in told["nodes"]] == [None] * 8, "two of one layer would be ambiguous"


def test_two_nodes_of_one_name_are_told(tmp_path: Path) -> None:
    held = small_graph()
    held["nodes"].append(feature(0, 1, 4, 0.7))
    write(tmp_path / "texas", "graph", held)
    assert "1 of the nodes share their name" in asked(tmp_path, "texas", "graph")[1]["message"]


@pytest.mark.parametrize(
    ("part", "text", "sentence"),
    [
        ("graph", '{"nodes": [', "graph.json cannot be read"),
        ("graph", '{"nodes": []}', "links: Field required"),
        ("graph", "[]", "graph.json cannot be read"),
        ("graph", json.dumps(small_graph() | {"links": [link("E_1_1", "9_9_9", 1)]}), "a link to '9_9_9'"),
        ("patch", json.dumps(small_patch() | {"tokens": ["a"]}), "3 rows of 6 cells for 3 sites and 1 tokens"),
        ("patch", json.dumps(small_patch() | {"sites": "a"}), "patch.json cannot be read: sites"),
    ],
)
def test_a_file_that_is_broken_is_refused_in_a_sentence(tmp_path: Path, part: str, text: str, sentence: str) -> None:
    write(tmp_path / "run", part, {})
    (tmp_path / "run" / f"{part}.json").write_text(text)
    status, told = asked(tmp_path, "run", part)
    assert status == 409 and sentence in told["detail"], told


def test_what_is_not_there_and_what_leads_out_is_refused(folder: Path, tmp_path: Path) -> None:
    assert asked(folder, "stopped", "graph")[0] == 409
    assert asked(folder, "layer-2", "graph") == (409, {"detail": "This run has no graph.json."})
    record("graph").write(tmp_path / "root" / "run")
    (tmp_path / "secret.json").write_text(json.dumps(small_graph()))
    (tmp_path / "root" / "run" / "graph.json").symlink_to(tmp_path / "secret.json")
    status, told = asked(tmp_path / "root", "run", "graph")
    assert status == 409 and "leads out" in told["detail"]


def test_numbers_that_are_none_reach_no_page(tmp_path: Path) -> None:
    held = small_graph()
    held["links"][0]["weight"] = float("nan")
    held["nodes"][2]["activation"] = float("inf")
    write(tmp_path / "texas", "graph", held)
    status, told = asked(tmp_path, "texas", "graph")
    assert status == 409 or len(told["links"]["weights"]) == 6


def test_the_graph_that_circuit_tracer_wrote_is_read(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "sae-fixtures" / "circuit-tracer" / "tinystories-lily-park.json"
    held = json.loads(source.read_text())
    write(tmp_path / "lily", "graph", held)
    status, told = asked(tmp_path, "lily", "graph")
    assert status == 200
    assert (len(told["nodes"]), len(told["links"]["weights"])) == (len(held["nodes"]), len(held["links"]))
    assert sum(one["kind"] == "target" for one in told["nodes"]) == 5
    assert told["tokens"] == held["metadata"]["prompt_tokens"]


def posted(folder: Path, name: str, part: str, body: dict) -> tuple[int, dict]:
    client = client_of(folder)
    answer = client.post(f"/api/runs/{cards(client)[name]['id']}/{part}", json=body)
    return answer.status_code, answer.json()


def test_a_change_is_put_to_the_live_graph(folder: Path) -> None:
    asked = {"changes": {"0_7_1": 0.0}, "watch": ["0_7_1", "2_3_4", "3_65_5", "3_66_5"]}
    status, told = posted(folder, "texas", "intervene", asked)
    assert status == 200
    assert (told["components"]["nodes"], told["targets"]["nodes"]) == (["2_3_4"], ["3_65_5", "3_66_5"])
    assert (told["targets"]["predicted"], told["targets"]["measured"]) == ([-3.0, -4.0], [-1.5, -2.0])
    assert (told["targets"]["pearson"], told["components"]["pearson"]) == (1.0, None)


@pytest.mark.parametrize(
    ("name", "part", "body", "sentence"),
    [
        ("texas", "intervene", {"changes": {}, "watch": []}, "at least 1"),
        ("texas", "intervene", {"changes": {"a": 1e9}, "watch": []}, "less than or equal"),
        ("texas", "intervene", {"changes": {"9_9_9": 0}, "watch": []}, "no node '9_9_9'"),
        ("texas", "fire", {"text": "a"}, "no dictionary that answers"),
        ("layer-2", "intervene", {"changes": {"a": 0}, "watch": []}, "has no graph whose nodes"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(
    folder: Path, name: str, part: str, body: dict, sentence: str
) -> None:
    status, told = posted(folder, name, part, body)
    assert status == 422 and sentence in told["detail"], told


def test_an_intervention_needs_the_token(folder: Path) -> None:
    stranger = TestClient(app_of(folder), base_url="http://127.0.0.1:8000")
    assert stranger.post("/api/runs/any/intervene", json={"changes": {"a": 0}, "watch": []}).status_code == 401


def test_the_file_is_handed_out_with_the_groups_of_the_page(folder: Path) -> None:
    client = client_of(folder)
    query = {"groups": json.dumps([["Mine", "2_3_4", "nowhere"], ["Empty"]]), "pinned": "2_3_4"}
    answer = client.get(f"/api/runs/{cards(client)['texas']['id']}/graph.json", params=query)
    held, wanted = answer.json(), small_graph()
    assert "attachment" in answer.headers["content-disposition"]
    assert held["qParams"] == {"supernodes": [["Mine", "2_3_4"]], "pinnedIds": ["2_3_4"]}
    assert {name: held[name] for name in ("metadata", "nodes", "links")} == {
        name: wanted[name] for name in ("metadata", "nodes", "links")
    }
    refused = client.get(f"/api/runs/{cards(client)['texas']['id']}/graph.json", params={"groups": "[[1]]"})
    assert refused.status_code == 409 and "these groups cannot be read" in refused.json()["detail"]
