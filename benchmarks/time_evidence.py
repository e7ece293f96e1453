"""How long a component's evidence takes to open, in catalogues of any number of components. Run by hand.

    python benchmarks/time_evidence.py --components 16384 1048576 [--fires 40]

A catalogue is made up: each component fires at random, in windows of random tokens, and has promoted tokens and
neighbours drawn at random; what is said of it is worked out and written as that of a real one. Then a page's answer is
made for components drawn at random, each opened for the first time: its column, its examples, its histogram, its
neighbours. Milliseconds of the processor and, in brackets, of the clock, which on a busy machine waits for others.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from microtome.browser.cards import Opened
from microtome.browser.runs import Runs
from microtome.store.catalog import COLUMNS_PER_FILE, write_columns, write_rest
from microtome.store.records import Run
from microtome.store.sketches import Sketches

SHARES = {"median": 0.5, "95%": 0.95, "longest": 1.0}
WINDOWS, CONTEXT, VOCABULARY, NEAR = 8192, 128, 4096, 10


def made_up(folder: Path, components: int, fires: int) -> None:
    """A run with a catalogue of so many components, each of which fires so often."""
    generator = np.random.default_rng(0)
    catalog = folder / "catalog"
    catalog.mkdir(parents=True)
    sketches = [part(catalog, file, min(COLUMNS_PER_FILE, components - file * COLUMNS_PER_FILE), fires, generator)
                for file in range(-(-components // COLUMNS_PER_FILE))]  # fmt: skip
    rows = {"neighbours": generator.integers(components, size=(components, NEAR), dtype=np.int32),
            "neighbour_cosine": generator.random((components, NEAR), np.float32)}  # fmt: skip
    for side in ("top", "bottom"):
        rows[f"logits_{side}"] = generator.integers(VOCABULARY, size=(components, NEAR), dtype=np.int32)
        rows[f"logits_{side}_value"] = generator.random((components, NEAR), np.float32)
    windows = {"tokens": generator.integers(VOCABULARY, size=(WINDOWS, CONTEXT), dtype=np.int32),
               "document": np.zeros(WINDOWS, np.int32), "labels": np.zeros((WINDOWS, CONTEXT, 0), bool)}  # fmt: skip
    about = {"first_window": 0, "text": "made up", "documents": ["made up"], "labels": []}
    write_rest(catalog, Sketches.joined(sketches), rows, windows, [str(n) for n in range(VOCABULARY)], about)
    Run(command="dissect", arguments={}, model="made up", site="resid_post.0", version="0", stage="done",
        created="2026-01-01T00:00:00+00:00").write(folder)  # fmt: skip


def part(folder: Path, file: int, count: int, fires: int, generator: np.random.Generator) -> Sketches:
    component = np.repeat(np.arange(count), fires)
    window = generator.integers(WINDOWS, size=len(component))
    token = np.unique(np.stack((component, window * CONTEXT + generator.integers(1, CONTEXT, len(component)))), axis=1)
    value = generator.gamma(2.0, 1.0, token.shape[1]).astype(np.float32)
    write_columns(folder, file, token[1], token[0] + file * COLUMNS_PER_FILE, value)
    return Sketches.of(token[1], token[0], value, count, CONTEXT)


def opened_in(folder: Path, looks: int) -> tuple[list[float], list[float]]:
    """Milliseconds of processor and clock for each of some components, none of them looked at before, in order."""
    (run,) = Runs(folder).find()
    catalog, processor, clock = Opened(run), [], []
    for component in np.random.default_rng(1).permutation(len(catalog.catalog))[:looks].tolist():
        begun, spent = time.perf_counter(), time.process_time()
        json.dumps(catalog.card(component).model_dump())
        clock.append((time.perf_counter() - begun) * 1e3)
        processor.append((time.process_time() - spent) * 1e3)
    return sorted(processor), sorted(clock)


def at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=int, nargs="+", default=[16_384, 1_048_576])
    parser.add_argument("--fires", type=int, default=40)
    parser.add_argument("--looks", type=int, default=200)
    asked = parser.parse_args()
    for components in asked.components:
        folder = Path(tempfile.mkdtemp())
        made_up(folder / "run", components, asked.fires)
        processor, clock = opened_in(folder / "run", asked.looks)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        figures = (f"{name} {at(processor, share):.1f} ({at(clock, share):.1f})" for name, share in SHARES.items())
        print(f"{components} components: {', '.join(figures)} ms; peak memory so far {peak:.2f} GB", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
