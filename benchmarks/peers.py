"""Microtome's training step beside those of other libraries, in turn, each in the Python that has it. Run by hand.

    python -m venv peers/saelens && peers/saelens/bin/pip install sae-lens
    python -m venv peers/sparsify && peers/sparsify/bin/pip install eai-sparsify
    python -m venv peers/dictlearn && peers/dictlearn/bin/pip install dictionary-learning
    python benchmarks/peers.py --saelens peers/saelens/bin/python --sparsify peers/sparsify/bin/python \\
        --dictionary-learning peers/dictlearn/bin/python

Every library learns a TopK dictionary of one size from the same batches, with its own defaults and AuxK on. All are set
up first, each in its process; then they take one step each, round after round, so that a busy machine slows all alike.
Quote the ratios. This file runs in every one of those Pythons, so at its top it imports nothing but torch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

Step = Callable[[torch.Tensor], object]


# ---------------------------------------------------------------- the steps, each run where its library is


def microtome(engine: str, d: int, n: int, k: int, rows: int) -> Step:
    from microtome.cli.bench_sae import Point, engine_of, learner
    from microtome.core.fit import fit
    from microtome.dictionaries.kernels.engine import available

    sae, objective = learner(Point(d, n, k, rows, 1))
    make = available(sae.W_enc)[engine]
    return fit(sae, [], objective, lr=3e-4, engine=partial(engine_of, make)).step


def saelens(autocast: bool, d: int, n: int, k: int, rows: int) -> Step:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=n, k=k))
    settings: Any = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=rows, autocast=autocast, lr_end=3e-5
    )
    return SAETrainer(settings, sae, iter(())).step


def sparsify(autocast: bool, d: int, n: int, k: int, rows: int) -> Step:
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    sae = SparseCoder(d, SparseCoderConfig(num_latents=n, k=k))
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-4)
    silent = torch.zeros(n, dtype=torch.long)

    def step(x: torch.Tensor) -> None:  # as its trainer goes, whose loop cannot be called for one step
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made = sae(x, dead_mask=silent > 10_000_000)
            (made.fvu + made.auxk_loss / 32).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()
        sae.set_decoder_norm_to_unit_norm()
        silent.add_(len(x))
        silent[made.latent_indices.flatten()] = 0

    return step


def dictionary_learning(autocast: bool, d: int, n: int, k: int, rows: int) -> Step:
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(steps=10**6, activation_dim=d, dict_size=n, k=k, layer=0, lm_name="", lr=3e-4, device="cpu")

    def step(x: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            trainer.update(1, x)  # its step 0 looks for a median first

    return step


STEPS: dict[str, dict[str, Callable[..., Step]]] = {
    "microtome": {f"microtome, {name}": partial(microtome, name) for name in ("PyTorch", "C", "C int8")},
    "saelens": {"SAELens": partial(saelens, False), "SAELens, bf16": partial(saelens, True)},
    "sparsify": {"sparsify, Adam": partial(sparsify, False), "sparsify, Adam, bf16": partial(sparsify, True)},
    "dictionary_learning": {
        "dictionary_learning": partial(dictionary_learning, False),
        "dictionary_learning, bf16": partial(dictionary_learning, True),
    },
}


def work(library: str, name: str, sizes: list[int], data: Path) -> None:
    """A process of one library: for each line on standard input, one step and its seconds."""
    batches = torch.load(data, weights_only=True)
    says, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like
    step = STEPS[library][name](*sizes)
    print("ready", file=says, flush=True)
    for turn, _ in enumerate(sys.stdin):
        begun = time.perf_counter()
        step(batches[turn % len(batches)])
        print(time.perf_counter() - begun, peak_memory(), file=says, flush=True)


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# ---------------------------------------------------------------- who asks them


class Worker:
    """One library's process, and what its steps took."""

    def __init__(self, python: str, library: str, name: str, sizes: list[int], data: Path):
        command = [python, __file__, "--work", library, name, *map(str, sizes), str(data)]
        self.name, self.seconds, self.peak = name, [], 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.alive = self._hear().strip() == "ready"

    def step(self) -> None:
        if not self.alive or self.process.stdin is None:
            return
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        said = self._hear().split()
        self.alive = len(said) == 2
        if self.alive:
            self.seconds.append(float(said[0]))
            self.peak = int(said[1])

    def _hear(self) -> str:
        return self.process.stdout.readline() if self.process.stdout else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for library in STEPS:
        own = sys.executable if library == "microtome" else None
        parser.add_argument(f"--{library.replace('_', '-')}", metavar="PYTHON", default=own)
    for name, default in (("d-in", 512), ("width", 8192), ("k", 32), ("batch", 4096), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(asked, Path(folder) / "batches.pt")


def compare(asked: argparse.Namespace, data: Path) -> None:
    from microtome.cli.bench_sae import Point, activations

    sizes = [asked.d_in, asked.width, asked.k, asked.batch]
    torch.save(activations(Point(*sizes, repeats=1)), data)
    pythons = {library: getattr(asked, library) for library in STEPS}
    workers = [
        Worker(pythons[library], library, name, sizes, data)
        for library, steps in STEPS.items()
        if pythons[library]
        for name in steps
    ]
    for _ in range(asked.repeats + 2):
        for worker in workers:
            worker.step()
    show([worker for worker in workers if len(worker.seconds) > 2])
    for worker in workers:
        worker.process.terminate()


def show(workers: list[Worker]) -> None:
    """Medians without the first two rounds; and each as a multiple of our PyTorch path, and of our best."""
    taken = {worker.name: statistics.median(worker.seconds[2:]) for worker in workers}
    torch_alone, best = taken["microtome, PyTorch"], min(s for name, s in taken.items() if name.startswith("microtome"))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"threads: {threads}, cores: {len(os.sched_getaffinity(0))}, torch {torch.__version__}")
    print(f"{'':28}{'ms':>9}{'peak MB':>9}{'x PyTorch':>11}{'x best':>8}")
    for worker in workers:
        s = taken[worker.name]
        print(f"{worker.name:28}{s * 1e3:9.0f}{worker.peak / 1e6:9.0f}{s / torch_alone:11.1f}{s / best:8.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], [int(size) for size in sys.argv[4:8]], Path(sys.argv[8]))
    else:
        main()
