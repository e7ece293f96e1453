"""Checkpoints of one folder are of one kind and one network, or a sentence says which is not."""

from pathlib import Path

import pytest
import torch

from microtome.cli.checkpoint_kinds import found_in
from microtome.core.errors import Refusal
from microtome.store.tensors import write_tensors


def weights(folder: Path, step: int, **shapes: tuple[int, ...]) -> None:
    write_tensors(folder / f"{step:04d}.safetensors", {name: torch.ones(shape) for name, shape in shapes.items()})


def test_files_of_weights_are_found_by_step(tmp_path: Path) -> None:
    for step in (20, 3):
        weights(tmp_path, step, w=(2, 3))
    kind, found = found_in(tmp_path)
    assert kind == "weights" and [one.step for one in found] == [3, 20]


def test_other_shapes_names_and_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no checkpoints"):
        found_in(tmp_path)
    weights(tmp_path, 1, w=(2, 3))
    weights(tmp_path, 2, w=(2, 4))
    with pytest.raises(Refusal, match=r"w is 2 x 3 in 0001.safetensors and 2 x 4 in 0002.safetensors"):
        found_in(tmp_path)
    weights(tmp_path, 2, w=(2, 3), b=())
    with pytest.raises(Refusal, match=r"0002.safetensors has a tensor 'b' and 0001.safetensors has none"):
        found_in(tmp_path)
    (tmp_path / "step3").mkdir()
    weights(tmp_path / "step3", 0, w=(2, 3))
    (tmp_path / "step3" / "config.json").write_text("{}")
    with pytest.raises(Refusal, match="holds a weights and step3 a model"):
        found_in(tmp_path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.safetensors").write_bytes(b"nothing")
    with pytest.raises(Refusal, match="copy this checkpoint again"):
        found_in(tmp_path)
