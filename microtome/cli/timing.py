"""How long a step takes beside what bounds it: both in turn, so that a busy machine slows both and the share holds."""

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

WARM = 2  # steps that are not counted


class Timing(BaseModel):
    """One step. `floor` names what it is held against, in `floor_ms`; `floor_share` is floor_ms / step_ms.

    A true floor cannot be beaten, so its share is at most 1; above 1 it is a comparison that was. `peak_memory_bytes`
    is the most that the process had held when the step had been taken twice. `used` says that `fit` takes this way.
    """

    name: str
    step_ms: float
    tokens_per_second: float
    peak_memory_bytes: int
    floor: str
    floor_ms: float
    floor_share: float
    used: bool = False


def compared(
    name: str,
    step: Callable[[], object],
    floor: str,
    bound: Callable[[], object],
    tokens: int,
    repeats: int,
    beside: Callable[[], object] | None = None,
) -> Timing:
    """Medians of `repeats` turns. Where part of the step is no part of the question, `beside` makes that alone.

    What `beside` took in the same turn is then taken off.
    """
    for _ in range(WARM):
        step()
    peak = peak_memory()  # before the floor, which may hold more
    turns = [(seconds(step) - (seconds(beside) if beside else 0.0), seconds(bound)) for _ in range(repeats + WARM)]
    mine, floors = (statistics.median(part) for part in zip(*turns[WARM:], strict=True))
    return Timing(
        name=name, step_ms=mine * 1e3, tokens_per_second=tokens / mine, peak_memory_bytes=peak, floor=floor,
        floor_ms=floors * 1e3, floor_share=floors / mine,
    )  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def peak_memory() -> int:
    """The most bytes this process has held. Linux counts a child's in `getrusage` from its parent's, hence its file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def show(found: list[Timing]) -> None:
    """A table; what `fit` uses is marked."""
    table = Table(title=f"{torch.get_num_threads()} threads, torch {torch.__version__}", title_justify="left")
    for column in ("", "ms", "tokens/s", "peak MB", "held against", "its ms", "share"):
        table.add_column(column, justify="left" if column in ("", "held against") else "right")
    for t in found:
        table.add_row(
            f"{t.name}{'  (fit)' if t.used else ''}", f"{t.step_ms:.1f}", f"{t.tokens_per_second:,.0f}",
            f"{t.peak_memory_bytes / 1e6:,.0f}", t.floor, f"{t.floor_ms:.1f}", f"{t.floor_share:.0%}",
        )  # fmt: skip
    Console().print(table)
