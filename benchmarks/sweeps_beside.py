"""A head x position sweep beside TransformerLens's own, over the same network, prompts and cells. Run by hand.

    python -m venv peers/tl && peers/tl/bin/pip install transformer-lens
    python benchmarks/sweeps_beside.py --transformer-lens peers/tl/bin/python [--prompts 8] [--tokens 15] [--cells 6]

A network with GPT-2-small's shape and random weights; each head's z at each position is patched from clean prompts into
corrupt ones, and the logit difference at the last position is taken. Ours: `effects`. TransformerLens: its
`get_act_patch_attn_head_out_by_pos` over a bridge to the same network, given the cells as a table.

They take turns, a position at a time, evenly spread, so that a busy machine slows both alike. Ours takes all heads
there, since what it does for a cell depends on how many are with it; TransformerLens, to which each is a whole forward
pass, only some. Quote the ratio. This file runs in both Pythons, so at its top it imports nothing but torch.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

LAYERS, HEADS, VOCAB = 12, 12, 50_257
Cell = tuple[int, int, int]  # layer, position, head
Sweep = Callable[[list[Cell]], torch.Tensor]


def network() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval().requires_grad_(False)


def prompts(seed: int, rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def ours(rows: int, tokens: int) -> Sweep:
    from microtome.core.edit import patch
    from microtome.core.effects import effects
    from microtome.core.inputs import Tokens
    from microtome.core.measure import logit_diff
    from microtome.models.load import load

    model = load(network())
    clean, corrupt = (Tokens.of(prompts(seed, rows, tokens)) for seed in (1, 2))
    source = model.run(clean, read=model.sites("z.*"))
    measure = logit_diff(torch.arange(rows), torch.arange(rows) + rows)

    def sweep(cells: list[Cell]) -> torch.Tensor:
        edits = [patch(model.site(f"z.{layer}").at(pos=pos, head=head), source) for layer, pos, head in cells]
        return effects(model, corrupt, edits, measure).after.mean(1)

    return sweep


def bridge() -> Any:
    """The network as TransformerLens 4 holds it. It wants a tokenizer, which nothing here uses: one of two words."""
    from tempfile import TemporaryDirectory

    os.environ["HF_HUB_OFFLINE"] = "1"  # before what looks at it is imported
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    made, words = network(), Tokenizer(models.WordLevel({"a": 0, "<e>": 1}, unk_token="<e>"))
    with TemporaryDirectory() as folder:
        PreTrainedTokenizerFast(
            tokenizer_object=words, **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<e>")
        ).save_pretrained(folder)
        made.config.save_pretrained(folder)
        held = TransformerBridge.boot_transformers(
            folder, hf_model=made, tokenizer=AutoTokenizer.from_pretrained(folder)
        )
    held.enable_compatibility_mode(no_processing=True)
    return held.eval()


def transformer_lens(rows: int, tokens: int) -> Sweep:
    import pandas
    from transformer_lens import patching

    model = bridge()
    clean, corrupt = (prompts(seed, rows, tokens) for seed in (1, 2))
    _, cache = model.run_with_cache(clean)
    each = torch.arange(rows)

    def difference(logits: torch.Tensor) -> torch.Tensor:
        return (logits[each, -1, each] - logits[each, -1, each + rows]).mean()

    @torch.no_grad()
    def sweep(cells: list[Cell]) -> torch.Tensor:
        table = pandas.DataFrame(cells, columns=["layer", "pos", "head"])
        return patching.get_act_patch_attn_head_out_by_pos(
            model, corrupt, cache, difference, index_axis_names=None, index_df=table
        )

    return sweep


WAYS = {"Microtome": ours, "TransformerLens": transformer_lens}


def at(position: int, count: int | None = None) -> list[Cell]:
    """All heads at a position, or so many of them, in layers far apart."""
    every = [(layer, position, head) for layer in range(LAYERS) for head in range(HEADS)]
    return every if count is None else every[:: max(1, len(every) // count)][:count]


def work(name: str, rows: int, tokens: int) -> None:
    """A process: for each line on standard input, which names its cells, their seconds and what they found."""
    says, sys.stdout = sys.stdout, sys.stderr
    sweep = WAYS[name](rows, tokens)
    print("ready", file=says, flush=True)
    for line in sys.stdin:
        position, count = line.split()
        cells = at(int(position), None if count == "all" else int(count))
        begun = time.perf_counter()
        found = sweep(cells)
        print(time.perf_counter() - begun, *found.tolist(), file=says, flush=True)


class Worker:
    """One library's process: what its cells took, and what they were."""

    def __init__(self, python: str, name: str, sizes: list[int]):
        quiet = os.environ | {"KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "PASSIVE"}  # others run meanwhile
        command = [python, __file__, "--work", name, *map(str, sizes)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet)
        self.seconds, self.found = [], {}
        if self._hear() != "ready":
            raise SystemExit(f"{name} could not be set up")

    def turn(self, position: int, count: int | None = None) -> None:
        """Seconds a cell are kept."""
        assert self.process.stdin is not None
        print(position, "all" if count is None else count, file=self.process.stdin, flush=True)
        taken, *values = map(float, self._hear().split())
        self.seconds.append(taken / len(values))
        self.found |= dict(zip(at(position, count), values, strict=True))

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer-lens", metavar="PYTHON", required=True)
    for name, default in (("prompts", 8), ("tokens", 15), ("cells", 6), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    sizes = [asked.prompts, asked.tokens]
    mine = Worker(sys.executable, "Microtome", sizes)
    theirs = Worker(asked.transformer_lens, "TransformerLens", sizes)
    mine.turn(asked.tokens - 1)  # what is tried once, on a first batch
    theirs.turn(asked.tokens - 1, 1)
    mine.seconds.clear(), theirs.seconds.clear()
    for turn in range(asked.turns):
        position = (2 * turn + 1) * asked.tokens // (2 * asked.turns)
        mine.turn(position)
        theirs.turn(position, asked.cells)
        print(
            f"position {position:3}  {mine.seconds[-1] * 1e3:8.1f} ms  {theirs.seconds[-1] * 1e3:8.1f} ms", flush=True
        )
    show(mine, theirs, asked.turns)
    for worker in (mine, theirs):
        worker.process.terminate()


def show(mine: Worker, theirs: Worker, turns: int) -> None:
    """Means over positions, since ours takes longer at earlier ones, and the largest difference between cells."""
    one, other = sum(mine.seconds) / turns, sum(theirs.seconds) / turns
    off = max(abs(mine.found[cell] - value) for cell, value in theirs.found.items())
    print(f"threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, torch {torch.__version__}, a cell:")
    print(
        f"Microtome {one * 1e3:.1f} ms, TransformerLens {other * 1e3:.1f} ms: {other / one:.2f} times; off by {off:.1e}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
