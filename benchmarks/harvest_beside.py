"""The residual stream of a model in the middle, read by our stream and as SAELens reads it. Run by hand.

    python -m venv peers/saelens && peers/saelens/bin/pip install sae-lens
    python benchmarks/harvest_beside.py --saelens peers/saelens/bin/python [--prompts 8] [--context 256] [--repeats 5]

A network with GPT-2-small's shape and random weights, read at the residual stream after the sixth of its twelve
blocks. Ours: `Reader`, as `harvest` and `stream` use it, in float32 and in bfloat16, beside the bare network's
own first six blocks. SAELens: its ActivationsStore.get_activations over a HookedTransformer, which is what fills its
buffer: a run with cache in float32, stopped after the block. Each in its process, in turn. This file runs in both
Pythons, so at its top it imports nothing but torch.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

LAYER = 5  # the output of this block
Harvest = Callable[[torch.Tensor], object]


def network() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def bare() -> Harvest:
    """The network's first blocks, and nothing else."""
    body = network().transformer
    body.h = body.h[: LAYER + 1]

    @torch.no_grad()
    def harvest(tokens: torch.Tensor) -> object:
        return body(tokens, use_cache=False)

    return harvest


def ours(precision: torch.dtype) -> Harvest:
    from microtome.core.inputs import Tokens
    from microtome.models.load import load
    from microtome.store.passes import Reader

    reader = Reader(load(network()), f"resid_post.{LAYER}", precision=precision)
    return lambda tokens: reader.read(Tokens.of(tokens)).rows()


def saelens() -> Harvest:
    """Its store's own way over a HookedTransformer of the same shape; the tokens are given, not drawn from a set."""
    from sae_lens.training.activations_store import ActivationsStore
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=12, d_model=768, n_ctx=1024, d_head=64, n_heads=12, d_vocab=50257, act_fn="gelu_new", seed=0
    )
    store = object.__new__(ActivationsStore)  # what get_activations reads, and no data set
    given = {
        "model": HookedTransformer(config).eval(), "hook_name": f"blocks.{LAYER}.hook_resid_post",
        "hook_head_index": None, "autocast_lm": False, "model_kwargs": {},
        "device": torch.device("cpu"), "d_in": 768, "seqpos_slice": (None,),
    }  # fmt: skip
    store.__dict__.update(given)

    @torch.no_grad()
    def harvest(tokens: torch.Tensor) -> object:
        return store.get_activations(tokens)

    return harvest


WAYS: dict[str, Callable[[], Harvest]] = {
    "bare network, float32": bare,
    "Microtome, float32": partial(ours, torch.float32),
    "Microtome, bfloat16": partial(ours, torch.bfloat16),
    "SAELens": saelens,
}


def work(name: str, prompts: int, context: int) -> None:
    """A process: for each line on standard input, one batch and its seconds."""
    says, sys.stdout = sys.stdout, sys.stderr
    tokens = torch.randint(50_000, (prompts, context), generator=torch.Generator().manual_seed(0))
    harvest = WAYS[name]()
    print("ready", file=says, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        harvest(tokens)
        print(time.perf_counter() - begun, file=says, flush=True)


class Worker:
    """One process, and what its batches took."""

    def __init__(self, python: str, name: str, sizes: list[int]):
        command = [python, __file__, "--work", name, *map(str, sizes)]
        self.name, self.seconds = name, []
        quiet = os.environ | {
            "KMP_BLOCKTIME": "0",
            "OMP_WAIT_POLICY": "PASSIVE",
        }  # no waiting in circles while others run
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)
        if self._hear() != "ready":
            raise SystemExit(f"{name} could not be set up")

    def turn(self) -> None:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        self.seconds.append(float(self._hear()))

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saelens", metavar="PYTHON")
    for name, default in (("prompts", 8), ("context", 256), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    pythons = {name: asked.saelens if name == "SAELens" else sys.executable for name in WAYS}
    workers = [Worker(python, name, [asked.prompts, asked.context]) for name, python in pythons.items() if python]
    for _ in range(asked.repeats + 2):
        for worker in workers:
            worker.turn()
    taken = {worker.name: statistics.median(worker.seconds[2:]) for worker in workers}
    best = taken["Microtome, bfloat16"]
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, {asked.prompts} x {asked.context} tokens")
    for name, seconds in taken.items():
        rate = asked.prompts * asked.context / seconds
        print(f"{name:24}{seconds * 1e3:8.0f} ms{rate:9.0f} tokens/s{seconds / best:7.2f} x ours in bfloat16")
    for worker in workers:
        worker.process.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
