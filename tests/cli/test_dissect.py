"""The main job, from a folder of text to a run folder: what it writes, how it stops, and what it says to bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from microtome.cli import dissection
from microtome.cli.main import DONE, STOPPED, WRONG, main
from microtome.dictionaries.files import load_dictionary
from microtome.dictionaries.formats.registry import write
from microtome.store import shards
from microtome.store.catalog import Catalog
from microtome.store.records import Run, Summary

SMALL = {
    "--tokens": "3000", "--width": "48", "--k": "4", "--context": "32", "--held-out": "1200", "--proposals": "1500", "--batch": "128",
    "--epochs": "2", "--site": "resid_post.0",
}  # fmt: skip


def dissect(model: Path, text: Path, into: Path, *more: str) -> int:
    small = [word for name, value in SMALL.items() if name not in more for word in (name, value)]
    return main(["dissect", str(model), "--text", str(text), "--into", str(into), *small, *more])


@pytest.fixture(scope="module")
def finished(llama_folder: Path, stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert dissect(llama_folder, stories, folder, "--json", str(folder.parent / "new" / "figures.json")) == DONE
    return folder


def test_a_run_leaves_a_summary_that_keeps_to_its_schema(finished: Path) -> None:
    summary = Summary.read(finished)
    assert summary.width == 48 and summary.k == 4 and summary.site == "resid_post.0"
    assert set(summary.baselines) == {"random", "pca", "neurons"}
    assert 0 < summary.explained_variance <= 1 and 0 < summary.l0 <= 4 and summary.seconds > 0
    assert summary.explained_variance > summary.baselines["random"].explained_variance
    assert all(f.ce_recovered is not None for f in (summary, *summary.baselines.values()))
    found = json.loads((finished / "summary.json").read_text())
    assert found["schema"] == "microtome/summary/1"
    assert set(found) == {p for p in Summary.model_json_schema(by_alias=True)["properties"]}


def test_the_json_file_holds_the_same_figures(finished: Path) -> None:
    assert json.loads((finished.parent / "new" / "figures.json").read_text()) == json.loads(
        (finished / "summary.json").read_text()
    )


def test_a_run_leaves_what_the_browser_needs_and_nothing_half_done(finished: Path) -> None:
    assert Run.read(finished).stage == "done"
    assert len(Catalog(finished / "catalog")) == 48 and (finished / "catalog" / "notes.sqlite").exists()
    assert not [p for p in finished.rglob("*") if p.name.startswith(".")]
    assert [json.loads(row)["step"] for row in (finished / "training.jsonl").read_text().splitlines()] != []


# ---------------------------------------------------------------- stopped and resumed


def interrupted(monkeypatch: pytest.MonkeyPatch, where: str, run: Callable[[], int]) -> int:
    """The exit code of a run during which Ctrl-C is pressed at some place."""
    real = {
        "harvest": shards.ShardWriter.append,
        "fit": dissection.fit.step,
        "catalog": dissection.Dissection._catalog,
    }[where]
    count = {"harvest": 1, "fit": 7, "catalog": 0}[where]
    calls = []

    def stop(*arguments: object) -> object:
        calls.append(1)
        if len(calls) > count:
            raise KeyboardInterrupt
        return real(*arguments)

    owner, name = {
        "harvest": (shards.ShardWriter, "append"),
        "fit": (dissection.fit, "step"),
        "catalog": (dissection.Dissection, "_catalog"),
    }[where]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stop)
        patched.setattr(dissection, "SAVE_EVERY", 3)
        return run()


def figures(folder: Path) -> dict:
    return Summary.read(folder).model_dump(exclude={"seconds", "peak_memory_bytes"})


@pytest.mark.parametrize("where", ["harvest", "fit", "catalog"])
def test_a_run_that_was_stopped_and_resumed_is_one_that_never_was(
    where: str,
    finished: Path,
    llama_folder: Path,
    stories: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = tmp_path / "run"
    assert interrupted(monkeypatch, where, lambda: dissect(llama_folder, stories, folder)) == STOPPED
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "microtome: stopped; the same command with --resume goes on from here"
    )
    assert Run.read(folder).stage == where
    assert dissect(llama_folder, stories, folder, "--resume") == DONE
    assert figures(folder) == figures(finished)
    mine, theirs = (load_file(f / "dictionary" / "weights.safetensors") for f in (folder, finished))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    for name, rows in Catalog(finished / "catalog").components.items():
        assert np.array_equal(Catalog(folder / "catalog").components[name], rows), name
    steps = [
        [json.loads(row)["step"] for row in (f / "training.jsonl").read_text().splitlines()] for f in (folder, finished)
    ]
    assert steps[0] == steps[1]


def test_a_disk_that_fills_stops_the_run_with_what_was_made_and_it_goes_on_when_there_is_room(
    llama_folder: Path, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, real = tmp_path / "run", shards.save_file

    def full(*_: object, **__: object) -> None:
        from safetensors import SafetensorError

        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(shards, "save_file", full)
    assert dissect(llama_folder, stories, folder) == STOPPED
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("microtome: the disk is full (") and said.endswith(
        "free some space, and the same command with --resume goes on from here"
    )
    monkeypatch.setattr(shards, "save_file", real)
    assert dissect(llama_folder, stories, folder, "--resume") == DONE


def test_resuming_what_is_done_changes_nothing(finished: Path, llama_folder: Path, stories: Path) -> None:
    before = figures(finished)
    assert dissect(llama_folder, stories, finished, "--resume") == DONE
    assert figures(finished) == before


def test_a_run_folder_cut_off_mid_write_goes_on(
    finished: Path, llama_folder: Path, stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert interrupted(monkeypatch, "fit", lambda: dissect(llama_folder, stories, folder)) == STOPPED
    (folder / ".training.safetensors.partial").write_bytes(b"half")
    (folder / "activations" / ".shard-00001.safetensors.partial").write_bytes(b"half")
    with (folder / "training.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    assert dissect(llama_folder, stories, folder, "--resume") == DONE
    assert figures(folder) == figures(finished)


# ---------------------------------------------------------------- bad input


def refused(capsys: pytest.CaptureFixture, code: int, *words: str) -> None:
    """It ended with 2 and one sentence that holds these words."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("microtome: ")]
    assert code == WRONG and len(lines) == 1
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--site", "resid_pots.0"], ["no site 'resid_pots.0'; did you mean 'resid_post.0'"]),
        (["--site", "resid_post.9"], ["no site 'resid_post.9'; did you mean"]),
        (["--width", "0"], ["width", "0", "greater than 0"]),
        (["--width", "-3"], ["width", "greater than 0"]),
        (["--k", "0"], ["k", "greater than 0"]),
        (["--k", "49"], ["k is 49, more than the 48 components there would be; lower --k or raise --width"]),
        (["--k", "many"], ["--k", "many"]),
        (["--tokens", "0"], ["tokens", "greater than 0"]),
        (["--tokens", "nan"], ["tokens"]),
        (["--context", "65"], ["a context of 65 is more than the 64 positions"]),
        (["--context", "1"], ["context", "greater than 1"]),
        (["--colour", "red"], ["--colour"]),
        (["--batch", "1000000"], ["rows are fewer than one batch of 1000000; harvest more tokens or lower the batch"]),
        (["--dictionary", "nowhere"], ["there is nothing at nowhere; give a folder or a file"]),
    ],
)
def test_a_wrong_argument_is_answered_in_one_sentence(
    more: list[str], words: list[str], llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused(capsys, dissect(llama_folder, stories, tmp_path / "run", *more), *words)


def test_a_mistake_that_left_nothing_behind_can_be_mended_in_the_same_folder(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused(capsys, dissect(llama_folder, stories, tmp_path / "run", "--site", "resid_pots.0"), "did you mean")
    assert dissect(llama_folder, stories, tmp_path / "run") == DONE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["the text has no train documents; give more files, or longer ones"]),
        ("\n\n\n", ["the text has no train documents"]),
        ("short", ["the text", "shorter than one context"]),
    ],
)
def test_an_empty_text_and_one_shorter_than_the_context_are_refused(
    content: str, words: list[str], llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "story.txt").write_text(content)
    refused(capsys, dissect(llama_folder, tmp_path / "story.txt", tmp_path / "run"), *words)


def test_text_that_is_not_there_or_not_text_is_refused(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused(capsys, dissect(llama_folder, tmp_path / "none.txt", tmp_path / "run"), "no text at", "none.txt")
    (tmp_path / "old.txt").write_bytes("naïve".encode("latin-1"))
    refused(capsys, dissect(llama_folder, tmp_path / "old.txt", tmp_path / "run2"), "old.txt is not UTF-8 text")


def test_a_model_that_is_not_there_is_refused(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    refused(capsys, dissect(tmp_path / "empty", stories, tmp_path / "run"), "has no config.json")


def test_a_model_without_a_tokenizer_is_refused(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copied(llama_folder, tmp_path / "mute", without="tokenizer")
    refused(
        capsys,
        dissect(tmp_path / "mute", stories, tmp_path / "run"),
        "has no tokenizer, so it cannot read text; add one to its folder",
    )


def test_activations_that_are_not_finite_are_refused_and_nothing_is_trained(
    llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from safetensors.torch import save_file

    folder = copied(llama_folder, tmp_path / "broken", without="model.safetensors")
    weights = load_file(llama_folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code = dissect(folder, stories, tmp_path / "run")
    refused(capsys, code, "resid_post.0")
    assert not (tmp_path / "run" / "dictionary").exists()


def copied(source: Path, into: Path, without: str) -> Path:
    into.mkdir()
    for file in source.iterdir():
        if not file.name.startswith(without):
            (into / file.name).write_bytes(file.read_bytes())
    return into


def test_a_folder_that_already_holds_a_run_is_left_alone(
    finished: Path, llama_folder: Path, stories: Path, capsys: pytest.CaptureFixture
) -> None:
    before = (finished / "summary.json").read_bytes()
    refused(
        capsys,
        dissect(llama_folder, stories, finished),
        "already holds a run; --resume goes on with it, another --into begins anew",
    )
    refused(
        capsys,
        dissect(llama_folder, stories, finished, "--resume", "--k", "5"),
        "was begun with k=4; give the same to resume",
    )
    assert (finished / "summary.json").read_bytes() == before


def test_a_dictionary_in_the_format_of_others_can_be_dissected(
    finished: Path, llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(load_dictionary(finished / "dictionary"), tmp_path / "sae", "sparsify")
    assert dissect(llama_folder, stories, tmp_path / "run", "--dictionary", str(tmp_path / "sae")) == DONE
    mine, theirs = Summary.read(tmp_path / "run"), Summary.read(finished)
    assert mine.explained_variance == pytest.approx(theirs.explained_variance, abs=1e-5) and mine.site == theirs.site
    assert "sparsify: SAE at resid_post.0, 48 components, TopK of 4" in "".join(capsys.readouterr())


def test_a_dictionary_that_is_a_pickle_must_be_converted_first(
    finished: Path, llama_folder: Path, stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(load_dictionary(finished / "dictionary"), tmp_path / "sae", "qwen_scope")
    code = dissect(llama_folder, stories, tmp_path / "run", "--dictionary", str(tmp_path / "sae"))
    refused(capsys, code, "is a pickle, which is not read unasked; `microtome convert")


def test_a_dictionary_that_was_trained_elsewhere_can_be_dissected(
    finished: Path, llama_folder: Path, stories: Path, tmp_path: Path
) -> None:
    assert dissect(llama_folder, stories, tmp_path / "run", "--dictionary", str(finished / "dictionary")) == DONE
    mine, theirs = Summary.read(tmp_path / "run"), Summary.read(finished)
    assert mine.explained_variance == pytest.approx(theirs.explained_variance, abs=1e-6) and mine.width == 48
