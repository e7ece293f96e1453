"""Any measure over a run's checkpoints: what a network was like at each step of its life.

Checkpoints are found by the numbers in their names, whether folders of a model (revisions such as `step1000`,
`checkpoint-500`) or files. How one is loaded and what is measured are yours; what was measured is kept as lines of
JSON, so that a series that was stopped goes on where it was.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

from microtome.core.errors import Refusal
from microtome.dynamics.phases import crossing
from microtome.store.whole import reading

Held = TypeVar("Held")


class Checkpoint(NamedTuple):
    """One moment of a run, and the folder or file that holds it."""

    step: int
    path: Path


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints in a folder, by step: those of its entries that hold a model or safetensors and a number.

    The last number in a name is the step. Raises Refusal where there are none, or two of one step.
    """
    if not folder.is_dir():
        raise Refusal(f"{folder} is no folder; give one whose entries are checkpoints, such as step1000/")
    found = [
        Checkpoint(int(numbers[-1]), path)
        for path in folder.iterdir()
        if (numbers := re.findall(r"\d+", path.stem if path.is_file() else path.name)) and holds_weights(path)
    ]
    if not found:
        raise Refusal(f"{folder} holds no checkpoints; they are named by step, as step1000/ or 001000.safetensors")
    found.sort()
    for one, other in pairwise(found):
        if one.step == other.step:
            raise Refusal(f"{one.path.name} and {other.path.name} are both step {one.step}; keep one of them")
    return found


def holds_weights(path: Path) -> bool:
    """Whether this is a checkpoint: a safetensors file, or a folder with one."""
    return any(path.glob("*.safetensors")) if path.is_dir() else path.suffix == ".safetensors"


@dataclass(frozen=True)
class Curves:
    """Named numbers at each of some steps, ascending. What was not measured at a step is nan."""

    steps: Sequence[int]
    values: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, rows: Mapping[int, Mapping[str, float]]) -> "Curves":
        """From what was measured at each step."""
        steps = sorted(rows)
        names = dict.fromkeys(name for step in steps for name in rows[step])
        return cls(steps, {name: [rows[step].get(name, math.nan) for step in steps] for name in names})

    def __getitem__(self, name: str) -> Sequence[float]:
        if name not in self.values:
            raise Refusal(f"no curve {name!r}; there are: {', '.join(self.values) or 'none'}")
        return self.values[name]

    def when(self, name: str, share: float = 0.5) -> int:
        """The step at which a curve is first past `share` of the way from its beginning to its end."""
        return self.steps[crossing(self[name], share)]

    def order(self, share: float = 0.5) -> list[str]:
        """The curves by when they change: which head, feature or ability appears first."""
        return sorted(self.values, key=lambda name: self.when(name, share))


def watched(
    found: Sequence[Checkpoint], load: Callable[[Path], Held], look: Callable[[Held], Mapping[str, float]], into: Path
) -> Iterator[Curves]:
    """Measure each checkpoint, one at a time in memory, and give the curves so far after each.

    `into` is a file of one line a checkpoint; steps that stand there are not measured again.
    """
    rows = known(into)
    wanted = {c.step for c in found}
    for checkpoint in found:
        if checkpoint.step not in rows:
            rows[checkpoint.step] = dict(look(load(checkpoint.path)))
            with into.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": checkpoint.step, **rows[checkpoint.step]}) + "\n")
        yield Curves.of({step: row for step, row in rows.items() if step in wanted and step <= checkpoint.step})


def known(path: Path) -> dict[int, dict[str, float]]:
    """What was measured before, by step; a last line that was cut short is left out of the file."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    with reading(path, "delete it to measure anew"):
        rows = [json.loads(line) for line in lines]
        return {row.pop("step"): row for row in rows}
