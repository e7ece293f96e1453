"""A catalogue beside SAEDashboard's own, over networks of one shape, one autoencoder and the same tokens. Run by hand.

    python -m venv peers/saedashboard && peers/saedashboard/bin/pip install sae-dashboard==0.8.0
    python benchmarks/catalogue_beside.py --saedashboard peers/saedashboard/bin/python [--width 16384] [--prompts 256]

Networks of one shape and a random TopK autoencoder of their stream. Ours: `catalog`, all latents in one pass, columns
and statistics and examples on disk. SAEDashboard's `SaeVisRunner` takes latents 128 at a time and for each such batch
reads all tokens again and encodes them with all latents (its default: the network runs again, too; with --cache its
activations are kept on disk by its own setting). It is timed on one batch, and its seconds are those times the number
of batches, which is what its loop does. They take turns, so that a busy machine slows both alike. Quote the ratio.

This file runs in both Pythons, so at its top it imports nothing but torch.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

LAYERS, WIDTH, HEADS, VOCAB, CONTEXT, LAYER = 4, 256, 4, 4096, 128, 2
BATCH = 128  # latents that SAEDashboard takes at a time, by its default for Neuronpedia
ROWS = 32  # prompts in a forward pass
Turn = Callable[[], object]


def network() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


def prompts(count: int) -> torch.Tensor:
    return torch.randint(VOCAB, (count, CONTEXT), generator=torch.Generator().manual_seed(1))


def weights(latents: int) -> torch.Tensor:
    """The decoder, with rows of length 1; the encoder is its transpose."""
    drawn = torch.randn(latents, WIDTH, generator=torch.Generator().manual_seed(2))
    return drawn / drawn.norm(dim=1, keepdim=True)


# ---------------------------------------------------------------- the two, each run where its library is


def ours(latents: int, k: int, count: int, cache: bool) -> Turn:
    import numpy as np

    from microtome.data.windows import Text
    from microtome.dictionaries.activation_functions import TopK
    from microtome.dictionaries.sae import SAE
    from microtome.explain.catalog import catalog
    from microtome.models.lens import direct_logits
    from microtome.models.load import load

    model = load(network(), verify=False)
    sae = SAE(model.site(f"resid_post.{LAYER}"), WIDTH, latents, TopK(k)).requires_grad_(False)
    sae.W_dec.copy_(weights(latents))
    sae.W_enc.copy_(weights(latents) if sae.W_enc.shape == sae.W_dec.shape else weights(latents).T)
    sae.b_enc.zero_()
    text = Text(prompts(count), np.zeros(count, np.int64), ["random"], np.zeros((count, CONTEXT, 0), bool))
    vocabulary = [str(n) for n in range(VOCAB)]

    def turn() -> object:
        with tempfile.TemporaryDirectory() as folder:
            logits = direct_logits(model, sae.directions().write[:, 0])
            return catalog(model, sae, text, Path(folder) / "c", vocabulary=vocabulary, logits=logits, batch=ROWS)

    return turn


def saedashboard(latents: int, k: int, count: int, cache: bool) -> Turn:
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import HookedSAETransformer
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=LAYERS, d_model=WIDTH, n_ctx=CONTEXT, d_head=WIDTH // HEADS, n_heads=HEADS, d_vocab=VOCAB,
        act_fn="gelu_new", normalization_type="LN", device="cpu",
    )  # fmt: skip
    model = HookedSAETransformer(config).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    hook = f"blocks.{LAYER}.hook_resid_post"
    sae = TopKSAE(TopKSAEConfig(d_in=WIDTH, d_sae=latents, k=k, rescale_acts_by_decoder_norm=True))
    sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name = hook, "random"
    sae.W_dec.data.copy_(weights(latents))
    sae.W_enc.data.copy_(weights(latents).T)
    tokens, folder = prompts(count), tempfile.mkdtemp() if cache else None

    def turn() -> object:
        asked = SaeVisConfig(
            hook_point=hook, features=list(range(BATCH)), minibatch_size_features=BATCH, minibatch_size_tokens=ROWS,
            cache_dir=Path(folder) if folder else None, verbose=False,
        )  # fmt: skip
        return SaeVisRunner(asked).run(encoder=sae, model=model, tokens=tokens)

    return turn


WAYS = {"Microtome": ours, "SAEDashboard": saedashboard}


def work(name: str, latents: int, k: int, count: int, cache: bool) -> None:
    """A process: for each line on standard input one turn, its seconds of the clock and of the processor, its peak."""
    says, sys.stdout = sys.stdout, sys.stderr
    turn = WAYS[name](latents, k, count, cache)
    print("ready", file=says, flush=True)
    for _ in sys.stdin:
        begun, spent = time.perf_counter(), time.process_time()
        turn()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - begun, time.process_time() - spent, peak, file=says, flush=True)


class Worker:
    """One library's process, and the seconds of each of its turns: of the clock, and of the processor."""

    def __init__(self, python: str, name: str, sizes: list[str]):
        command = [python, __file__, "--work", name, *sizes]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.clock, self.processor, self.peak = [], [], 0
        if self._hear() != "ready":
            raise SystemExit(f"{name} could not be set up")

    def turn(self) -> None:
        assert self.process.stdin is not None
        print("turn", file=self.process.stdin, flush=True)
        clock, processor, peak = map(float, self._hear().split())
        self.clock.append(clock)
        self.processor.append(processor)
        self.peak = int(peak)

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saedashboard", metavar="PYTHON", required=True)
    parser.add_argument("--cache", action="store_true", help="let SAEDashboard keep activations on disk")
    for name, default in (("width", 16_384), ("k", 32), ("prompts", 256), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    sizes = [str(asked.width), str(asked.k), str(asked.prompts), str(int(asked.cache))]
    mine, theirs = Worker(sys.executable, "Microtome", sizes), Worker(asked.saedashboard, "SAEDashboard", sizes)
    for _ in range(asked.turns + 1):  # the first warms up, and fills the cache
        mine.turn()
        theirs.turn()
    show(mine, theirs, asked.width // BATCH, asked)
    for worker in (mine, theirs):
        worker.process.terminate()


def show(mine: Worker, theirs: Worker, batches: int, asked: argparse.Namespace) -> None:
    """Of all latents; SAEDashboard's is one batch's times the number of batches. The least of the turns counts."""
    tokens = asked.prompts * CONTEXT
    print(f"{asked.width} latents, {tokens} tokens, threads: {os.environ.get('OMP_NUM_THREADS', 'all')}")
    for name in ("clock", "processor"):
        one, other = min(getattr(mine, name)[1:]), min(getattr(theirs, name)[1:]) * batches
        print(f"{name}: Microtome {one:.1f} s, SAEDashboard {other:.1f} s: {other / one:.1f} times")
    print(f"peak memory: Microtome {mine.peak / 1e9:.2f} GB, SAEDashboard {theirs.peak / 1e9:.2f} GB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        latents, k, count, cache = map(int, sys.argv[3:7])
        work(sys.argv[2], latents, k, count, bool(cache))
    else:
        main()
