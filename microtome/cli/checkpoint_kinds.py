"""What the checkpoints in a folder are: models, dictionaries, or weights that only their own code could run."""

from pathlib import Path
from typing import Literal

from microtome.core.errors import Refusal
from microtome.dynamics.series import Checkpoint, checkpoints
from microtome.store.tensors import read_shapes
from microtome.store.whole import reading

Kind = Literal["model", "dictionary", "weights"]


def found_in(folder: Path) -> tuple[Kind, list[Checkpoint]]:
    """All checkpoints of a folder, by step, and their one kind.

    Raises Refusal where there are none, and where they are of several kinds or of networks of other shapes.
    """
    found = checkpoints(folder)
    kind = kind_of(found[0].path)
    for one in found[1:]:
        if (other := kind_of(one.path)) != kind:
            raise Refusal(
                f"{found[0].path.name} holds a {kind} and {one.path.name} a {other}; give a folder of one kind"
            )
    refuse_other_shapes(found)
    return kind, found


def kind_of(path: Path) -> Kind:
    if (path / "config.json").is_file():
        return "model"
    return "dictionary" if (path / "dictionary.json").is_file() else "weights"


def refuse_other_shapes(found: list[Checkpoint]) -> None:
    first = shapes(found[0].path)
    for one in found[1:]:
        here = shapes(one.path)
        if odd := sorted(first.keys() ^ here.keys()):
            owner, other = (found[0], one) if odd[0] in first else (one, found[0])
            raise Refusal(
                f"{owner.path.name} has a tensor {odd[0]!r} and {other.path.name} has none; give checkpoints of one "
                "network"
            )
        for name, shape in first.items():
            if here[name] != shape:
                raise Refusal(
                    f"{name} is {sized(shape)} in {found[0].path.name} and {sized(here[name])} in {one.path.name}; "
                    "give checkpoints of one network"
                )


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint, from the heads of its files."""
    made: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        with reading(file, "copy this checkpoint again, or take it out of the folder"):
            made |= read_shapes(file)
    return made


def weight_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


def sized(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
