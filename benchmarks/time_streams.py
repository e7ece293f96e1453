"""One dictionary against eight on one stream: how much of a fit is the model's own forward pass.

    python benchmarks/time_streams.py [--width 2048] [--batches 6]

The model has the shape of GPT-2 small and random weights; the stream stops at its seventh block's output. Both take
turns, batch by batch, so a busy machine slows both; the ratio is what to quote.
"""

import argparse
import statistics
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.core.together import together
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.models.load import load
from microtome.store.stream import stream


def fits(number: int, site: Site, width: int) -> dict[str, fit]:
    """So many dictionaries, each with a rate of its own."""
    made = {}
    for i in range(number):
        sae = SAE(site, 768, width, TopK(32), generator=torch.Generator().manual_seed(i))
        made[str(i)] = fit(sae, [], Reconstruction() + AuxK(width), lr=1e-3 * 1.2**i)
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--width", type=int, default=2048)
    arguments.add_argument("--batches", type=int, default=6)
    given = arguments.parse_args()
    torch.manual_seed(0)
    model = load(GPT2LMHeadModel(GPT2Config()).eval())
    site = model.site("resid_post.6")
    tokens = [Tokens.of(torch.randint(50_000, (8, 257))) for _ in range(2 * given.batches + 8)]
    runs = {}
    for number in (1, 8):
        batches = stream(model, tokens, site, batch=2048, buffer=4096, at_once=1, ahead=0, precision=torch.bfloat16)
        runs[number] = iter(together(fits(number, site, given.width), batches))
    seconds = {number: [] for number in runs}
    for _ in range(given.batches):
        for number, run in runs.items():
            begun = time.perf_counter()
            next(run)
            seconds[number].append(time.perf_counter() - begun)
    one, eight = (statistics.median(seconds[number][1:]) for number in (1, 8))
    print(f"one {one * 1e3:.0f} ms a batch of 2,048 tokens, eight {eight * 1e3:.0f} ms: {eight / one:.2f} times")


if __name__ == "__main__":
    main()
