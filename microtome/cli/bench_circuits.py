"""The rows of `microtome bench circuits`: sweeps, edges and graphs on random models, each in a process of its own.

    sweep     every head at every position of a GPT-2 small, beside a whole pass for each
    EAP       edge scores on the shape of GPT-2 XL, and the memory beyond a forward and backward pass
    EAP-IG    edge scores along a path on 12 layers of 768, beside as many forward and backward passes
    graph     attribution graphs of 8 and of 256 targets on 12 layers of 768, and the memory of each

Figures do not depend on what a model has learned, so none is loaded.
"""

# pyright: reportUnknownMemberType=false

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from microtome.circuits.attribution_graph import attribute
from microtome.circuits.edge_attribution import edge_attribution
from microtome.circuits.gradient_paths import AlongInputs
from microtome.circuits.targets import TopLogits
from microtome.circuits.wiring import wiring
from microtome.cli.timing import peak_memory, seconds
from microtome.core.edit import Edit, patch
from microtome.core.effects import effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import Measure, logit_diff
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.transcoder import Transcoder
from microtome.models.hooked import HookedModel
from microtome.models.random import random_gpt2

SWEEP, EDGES, PATHS, GRAPH = "head x position sweep", "EAP, GPT-2 XL shape", "EAP-IG", "attribution graph"
TURNS = 5  # times that what a row is held against is taken, half before and half after
SMALL_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed is given back


class CircuitTiming(BaseModel):
    """One figure: `found` beside what was `asked`, and what it was found from.

    `ms` is the time of one cell, pair or graph, `floor_ms` that of what it is held against. `extra_memory_bytes` is the
    most that the process held beyond `beyond`.
    """

    name: str
    ms: float
    extra_memory_bytes: int
    beyond: str
    floor: str
    floor_ms: float
    found: str
    asked: str
    ok: bool


@dataclass(frozen=True)
class Shape:
    """A model, and how much is asked of it. The defaults are those of GPT-2 small."""

    layers: int = 12
    heads: int = 12
    d: int = 768
    inner: int = 3072
    vocab: int = 50_257
    pairs: int = 8
    tokens: int = 15
    batch: int = 8  # pairs at one time
    steps: int = 5
    width: int = 4096  # latents of each transcoder

    def refuse_nonsense(self) -> None:
        if self.d % self.heads:
            raise Refusal(f"{self.heads} heads do not divide a width of {self.d}; give a multiple of the heads")
        if min(self.pairs, self.batch, self.steps, self.layers) < 1 or self.tokens < 2:
            raise Refusal(
                f"pairs, batch, steps and layers are {self.pairs}, {self.batch}, {self.steps} and {self.layers} of "
                f"{self.tokens} tokens; give at least 1 of each, and 2 tokens"
            )


SHAPES = {
    SWEEP: Shape(),
    EDGES: Shape(layers=48, heads=25, d=1600, inner=1600, vocab=512),
    PATHS: Shape(pairs=100),
    GRAPH: Shape(pairs=1, batch=1),
}


def time_circuits(shapes: dict[str, Shape] | None = None) -> list[CircuitTiming]:
    """Every row, at the shapes that the figures are asked for unless others are given."""
    return [MAKES[name](shape) for name, shape in (SHAPES if shapes is None else shapes).items()]


# ---------------------------------------------------------------- what is run


def model_of(shape: Shape) -> HookedModel:
    """A random GPT-2 of this shape."""
    shape.refuse_nonsense()
    return random_gpt2(shape.layers, shape.heads, shape.d, shape.inner, shape.vocab, max(64, shape.tokens))


def prompts(shape: Shape, seed: int, rows: int) -> Tokens:
    drawn = torch.Generator().manual_seed(seed)
    return Tokens.of(torch.randint(shape.vocab, (rows, shape.tokens), generator=drawn))


def measured(shape: Shape, rows: int) -> Measure:
    return logit_diff(torch.arange(rows) % shape.vocab, (torch.arange(rows) + rows) % shape.vocab)


def forward_and_backward(model: HookedModel, inputs: Tokens, measure: Measure) -> None:
    with torch.enable_grad():
        start = model.site("resid_pre.0")
        trace = model.run(inputs, read=[start, *(s.whole for s in measure.reads)], leaves=[start])
        torch.autograd.grad(measure(trace).sum(), trace[start])


def held() -> int:
    """Bytes that this process holds now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


# ---------------------------------------------------------------- the rows


def sweep(shape: Shape) -> CircuitTiming:
    """All heads at all positions, patched from another prompt; each beside a whole pass of its own."""
    model, rows = model_of(shape), shape.pairs
    clean, corrupt, measure = prompts(shape, 1, rows), prompts(shape, 2, rows), measured(shape, rows)
    source = model.run(clean, read=model.sites("z.*"))
    edits = [
        patch(site.at(head=h, pos=p), source)
        for site in source.sites
        for h in range(shape.heads)
        for p in range(shape.tokens)
    ]
    before = held()
    taken, whole, found = beside(
        lambda: effects(model, corrupt, edits, measure), lambda: one_pass(model, corrupt, edits[0])
    )
    extra, each = peak_memory() - before, taken / len(edits)
    some = range(0, len(edits), len(edits) // 24 + 1)  # at all positions, as this step does not divide by theirs
    off = max(float((found.after[i] - measure(one_pass(model, corrupt, edits[i]))).abs().max()) for i in some)
    return CircuitTiming(
        name=f"{SWEEP}, {len(edits)} cells of {rows} prompts", ms=each * 1e3, extra_memory_bytes=extra,
        beyond="the model", floor="a whole pass for each cell", floor_ms=whole * 1e3,
        found=f"{whole / each:.2f} times as fast, off by {off:.1e}", asked="3.5 times, 1e-4",
        ok=whole / each >= 3.5 and off <= 1e-4,
    )  # fmt: skip


@torch.no_grad()
def one_pass(model: HookedModel, inputs: Tokens, edit: Edit) -> Any:
    return model.run(inputs, read=["logits"], edit=[edit])


def beside(step: Callable[[], Any], floor: Callable[[], object]) -> tuple[float, float, Any]:
    """Seconds of a long step, the median of those of what it is held against before and after it, and what came out."""
    floor()
    turns, kept = [seconds(floor) for _ in range(TURNS)], []
    taken = seconds(lambda: kept.append(step()))
    turns += [seconds(floor) for _ in range(TURNS)]
    return taken, statistics.median(turns), kept[0]


def edges(shape: Shape) -> CircuitTiming:
    """Edge scores, and what they hold beyond a forward and backward pass, each in a process of its own."""
    shape.refuse_nonsense()
    passes, scores = (alone(name, shape) for name in ("passes", "scores"))
    whole = (1 + shape.layers * (shape.heads + 1)) * shape.batch * shape.tokens * shape.d * 4
    extra = int(scores["peak"] - passes["peak"])
    return CircuitTiming(
        name=f"{EDGES}, {shape.layers} layers of {shape.heads} heads", ms=scores["seconds"] / shape.batch * 1e3,
        extra_memory_bytes=extra, beyond="a forward and backward pass", floor="a forward and backward pass",
        floor_ms=passes["seconds"] / shape.batch * 1e3,
        found=f"{extra / whole:.3f} of {whole / 1e6:.0f} MB, every writer's output",
        asked="0.1", ok=extra <= 0.1 * whole,
    )  # fmt: skip


def passes_alone(shape: Shape) -> dict[str, float]:
    model, inputs, measure = model_of(shape), prompts(shape, 1, shape.batch), measured(shape, shape.batch)
    forward_and_backward(model, inputs, measure)
    peak = peak_memory()
    return {"peak": float(peak), "seconds": seconds(partial(forward_and_backward, model, inputs, measure))}


def scores_alone(shape: Shape) -> dict[str, float]:
    model, measure = model_of(shape), measured(shape, shape.batch)
    clean, corrupt = (prompts(shape, seed, shape.batch) for seed in (1, 2))
    taken = seconds(lambda: edge_attribution(model, clean, corrupt, measure))
    return {"peak": float(peak_memory()), "seconds": taken}


def paths(shape: Shape) -> CircuitTiming:
    """Edge scores along a path, some pairs at a time, beside as many forward and backward passes of as many pairs."""
    model, wired = model_of(shape), None
    before, mine, floors = held(), 0.0, 0.0
    for start in range(0, shape.pairs, shape.batch):
        rows = min(shape.batch, shape.pairs - start)
        clean, corrupt, measure = (
            prompts(shape, 1 + start, rows),
            prompts(shape, 2 + start, rows),
            measured(shape, rows),
        )
        if wired is None:
            wired = wiring(model, clean)
            edge_attribution(model, clean, corrupt, measure, wired=wired)  # finds the weights, once for all pairs
            forward_and_backward(model, clean, measure)
        step = partial(edge_attribution, model, clean, corrupt, measure, AlongInputs(shape.steps), wired=wired)
        mine += seconds(step)
        floors += sum(seconds(partial(forward_and_backward, model, clean, measure)) for _ in range(shape.steps + 1))
    return CircuitTiming(
        name=f"{PATHS}, {shape.steps} steps, {shape.pairs} pairs", ms=mine / shape.pairs * 1e3,
        extra_memory_bytes=peak_memory() - before, beyond="the model",
        floor=f"{shape.steps + 1} forward and backward passes", floor_ms=floors / shape.pairs * 1e3,
        found=f"{mine / floors:.2f} times", asked="1.2 times", ok=mine <= 1.2 * floors,
    )  # fmt: skip


def graph(shape: Shape, few: int = 8, many: int = 256) -> CircuitTiming:
    """Attribution graphs of few and of many targets, each in a process of its own."""
    shape.refuse_nonsense()
    small, large = alone("few", shape, few), alone("many", shape, many)
    return CircuitTiming(
        name=f"{GRAPH}, {many} targets", ms=large["seconds"] * 1e3, extra_memory_bytes=int(large["peak"]),
        beyond="the model and its dictionaries", floor=f"{few} targets", floor_ms=small["seconds"] * 1e3,
        found=f"{large['peak'] / small['peak']:.2f} times the memory", asked="1.5 times",
        ok=large["peak"] <= 1.5 * small["peak"],
    )  # fmt: skip


def graph_alone(shape: Shape, targets: int) -> dict[str, float]:
    model, drawn = model_of(shape), torch.Generator().manual_seed(0)
    dictionaries = [
        Transcoder(
            model.site(f"mlp_in.{i}"),
            model.site(f"mlp_out.{i}"),
            shape.d,
            shape.d,
            shape.width,
            TopK(8),
            generator=drawn,
        ).requires_grad_(False)
        for i in range(shape.layers)
    ]
    before, inputs = held(), prompts(shape, 1, 1)
    taken = seconds(lambda: attribute(model, inputs, dictionaries, TopLogits(targets, 1.0), most=64))
    return {"peak": float(peak_memory() - before), "seconds": taken}


# ---------------------------------------------------------------- in processes of their own

MAKES = {SWEEP: sweep, EDGES: edges, PATHS: paths, GRAPH: graph}
ALONE = {"passes": passes_alone, "scores": scores_alone, "few": graph_alone, "many": graph_alone}


def alone(name: str, shape: Shape, *more: int) -> dict[str, float]:
    """What one process of its own finds, with as many threads as this one. Raises Refusal where it did not survive."""
    asked = json.dumps([name, asdict(shape), more, torch.get_num_threads()])
    done = subprocess.run(
        [sys.executable, "-m", __name__, asked], capture_output=True, text=True, env={**os.environ, **SMALL_BLOCKS}
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise Refusal(f"{name!r} could not be timed: {said}; try a smaller shape")
    return json.loads(done.stdout.splitlines()[-1])


def show_circuits(found: list[CircuitTiming]) -> None:
    """A table of what was asked and found."""
    table = Table(title=f"{torch.get_num_threads()} threads, torch {torch.__version__}", title_justify="left")
    for column in ("", "ms", "extra MB", "held against", "its ms", "found", "asked"):
        table.add_column(column, justify="right" if "ms" in column or "MB" in column else "left")
    for t in found:
        table.add_row(
            t.name, f"{t.ms:.1f}", f"{t.extra_memory_bytes / 1e6:,.0f}", t.floor, f"{t.floor_ms:.1f}", t.found,
            f"{t.asked}{'' if t.ok else '  MISSED'}",
        )  # fmt: skip
    Console().print(table)


def main(asked: str) -> None:
    """What a process of its own does: one finding, said on standard output."""
    name, shape, more, threads = json.loads(asked)
    torch.set_num_threads(threads)
    print(json.dumps(ALONE[name](Shape(**shape), *more)))


if __name__ == "__main__":
    main(sys.argv[1])
