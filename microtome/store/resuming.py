"""A fit that outlives its process: what it learned, how it learns, the stream it learns from, and chance, in one file.

for step in resumable(learning, stream, "runs/a/training.safetensors", every=200): ...

Run again after any stop, the same lines go on from the last save, and end bit for bit where they would have ended.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.store.checkpoint import load_state, save_state

T = TypeVar("T", covariant=True)
SCHEMA = "microtome/training/1"


@runtime_checkable
class Stateful(Protocol):
    """What can be put on disk and go on from there: fits, streams, batches of a harvest."""

    def state_dict(self) -> dict[str, Any]:
        """All that the rest depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...


@runtime_checkable
class Learning(Protocol[T]):
    """Steps that are iterated over, and a state: a fit, or several together."""

    def __iter__(self) -> Iterator[T]: ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...


def resumable(
    learning: Learning[T],
    stream: Stateful,
    path: Path | str,
    *,
    every: int = 200,
    generators: Mapping[str, torch.Generator] | None = None,
) -> Iterator[T]:
    """The steps of a fit that learns from `stream`, saved to `path` after each `every`-th and the last.

    Where `path` exists it goes on from there, at once and not at the first step. Make `learning` and `stream` as they
    were made the first time. torch's own state of chance is kept; `generators` are others that learning draws from.
    What is handed to the fit as batches is `stream`, or made of it one by one (moved to a device): whatever works ahead
    does so inside the stream, which counts what it has served.

    Raises Refusal for a file that is cut off or of other shapes than these, before anything is changed.
    """
    if every < 1:
        raise Refusal(f"every is {every}; save after each step (1) or fewer")
    kept = Checkpoint(learning, stream, Path(path), dict(generators or {}))
    kept.take_up()
    return saving(learning, kept, every)


def saving(learning: Learning[T], kept: "Checkpoint", every: int) -> Iterator[T]:
    """Steps are saved before they are handed on: one that was seen is never made again but for those since the save."""
    unsaved = 0
    for step in learning:
        unsaved += 1
        if unsaved == every:
            kept.save()
            unsaved = 0
        yield step
    if unsaved:
        kept.save()


class Checkpoint(Stateful):
    """A fit, its stream and chance as one state, and its place on disk."""

    def __init__(self, learning: Stateful, stream: Stateful, path: Path, generators: Mapping[str, torch.Generator]):
        self.learning, self.stream, self.path, self.generators = learning, stream, path, generators

    def save(self) -> None:
        """Write the state in place of the last one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        save_state(self.state_dict(), self.path)

    def take_up(self) -> None:
        """Go on from the file, where there is one."""
        if self.path.exists():
            self.load_state_dict(load_state(self.path))

    def state_dict(self) -> dict[str, Any]:
        """What is learned, the stream, and chance."""
        return {
            "schema": SCHEMA, "learning": self.learning.state_dict(), "stream": self.stream.state_dict(),
            "chance": chance(), "generators": {name: g.get_state() for name, g in self.generators.items()},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises Refusal for what does not fit, before anything is changed."""
        if state.get("schema") != SCHEMA:
            raise Refusal(f"{self.path} has schema {state.get('schema')!r}, not {SCHEMA!r}; choose another path")
        misfit = next(misfits(state["learning"], self.learning.state_dict()), None)
        if misfit is None and set(state["generators"]) != set(self.generators):
            was, here = (", ".join(sorted(g)) or "none" for g in (state["generators"], self.generators))
            misfit = f"its generators are {was}, and here they are {here}"
        if misfit is not None:
            raise Refusal(f"{self.path} is of another fit: {misfit}; make the fit as it was, or choose another path")
        self.stream.load_state_dict(state["stream"])
        self.learning.load_state_dict(state["learning"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        restore_chance(state["chance"])


def chance() -> dict[str, Any]:
    """torch's own generators: of the processor, and of the accelerators where they are in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_chance(state: Mapping[str, Any]) -> None:
    """Put torch's own generators back where they were."""
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available():
        for device, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, device)


def misfits(saved: Any, here: Any, where: str = "") -> Iterator[str]:
    """Where two states differ in their names, shapes or dtypes. What is still empty here is made by the first step."""
    if isinstance(saved, dict) and isinstance(here, dict):
        if here and set(saved) != set(here):
            names = ", ".join(sorted(str(name) for name in set(saved) ^ set(here)))
            yield f"{where or 'the state'} has {names} only in one of the two"
        for name in (name for name in saved if name in here):
            yield from misfits(saved[name], here[name], f"{where}.{name}".lstrip("."))
    elif isinstance(saved, Tensor) and isinstance(here, Tensor):
        if (saved.shape, saved.dtype) != (here.shape, here.dtype):
            yield f"{where} is {described(saved)}, and here it is {described(here)}"
    elif isinstance(saved, Tensor) != isinstance(here, Tensor) or isinstance(saved, dict) != isinstance(here, dict):
        yield f"{where} is {described(saved)}, and here it is {described(here)}"


def described(value: Any) -> str:
    """What a value is, in words: a tensor by shape and precision."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{' x '.join(map(str, value.shape)) or 'one'} {str(value.dtype).removeprefix('torch.')}"
