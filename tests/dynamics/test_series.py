"""Checkpoints by the numbers in their names, measured once each, and curves put in order."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from microtome.core.errors import Refusal
from microtome.dynamics.series import Curves, checkpoints, watched


def run_of(folder: Path, steps: list[int]) -> None:
    for step in steps:
        (folder / f"step{step}").mkdir()
        save_file({"w": torch.tensor([float(step)])}, folder / f"step{step}" / "model.safetensors")


def test_checkpoints_are_ordered_by_number_and_not_by_name(tmp_path: Path) -> None:
    run_of(tmp_path, [1000, 20, 300])
    save_file({"w": torch.zeros(1)}, tmp_path / "000064.safetensors")
    (tmp_path / "notes-7.txt").write_text("no weights")
    (tmp_path / "empty8").mkdir()
    assert [c.step for c in checkpoints(tmp_path)] == [20, 64, 300, 1000]


def test_folders_without_checkpoints_or_with_two_of_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no checkpoints; they are named by step"):
        checkpoints(tmp_path)
    with pytest.raises(Refusal, match="is no folder"):
        checkpoints(tmp_path / "nothing")
    run_of(tmp_path, [5])
    save_file({"w": torch.zeros(1)}, tmp_path / "checkpoint-5.safetensors")
    with pytest.raises(Refusal, match="are both step 5; keep one"):
        checkpoints(tmp_path)


def test_a_series_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    run_of(tmp_path, [0, 10, 20])
    looked: list[float] = []

    def load(path: Path) -> float:
        return float(load_file(path / "model.safetensors")["w"])

    def look(weight: float) -> dict[str, float]:
        looked.append(weight)
        return {"square": weight**2}

    into = tmp_path / "series.jsonl"
    first = next(watched(checkpoints(tmp_path), load, look, into))
    assert list(first.steps) == [0]
    with into.open("a") as file:
        file.write('{"step": 10, "squ')  # stopped while writing
    *_, last = watched(checkpoints(tmp_path), load, look, into)
    assert list(last["square"]) == [0, 100, 400] and looked == [0, 10, 20]
    into.write_text("not JSON\n")
    with pytest.raises(Refusal, match="is damaged; delete it to measure anew"):
        list(watched(checkpoints(tmp_path), load, look, into))


def test_curves_are_put_in_order_of_their_change() -> None:
    curves = Curves.of({30: {"b": 1.0, "a": 1.0}, 0: {"a": 0.0, "b": 0.0}, 10: {"a": 0.9, "b": 0.1}})
    assert curves.order() == ["a", "b"] and curves.when("a") == 10 and curves.when("b") == 30
    assert math.isnan(Curves.of({0: {"a": 1.0}, 1: {"a": 2.0, "b": 3.0}})["b"][0])
    with pytest.raises(Refusal, match="no curve 'c'; there are: a, b"):
        _ = curves["c"]
