"""How many distinct documents a batch of the stream holds, beside one of a global shuffle of all rows. Run by hand.

    python benchmarks/mixing.py [--batch 2048 4096] [--context 128 256]

The text is the standard library, cut for the specimen. The network only echoes the number of each row's document, so
what is measured is the stream itself, with its defaults; the shuffle is drawn ten times.
"""

import argparse
from collections.abc import Iterable
from itertools import count

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.fit import Batch
from microtome.data.corpus import corpus
from microtome.data.windows import Window
from microtome.models.load import load
from microtome.store.stream import stream


class Echo(nn.Module):
    """A network whose activations are the tokens that it is given and their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.said = nn.Identity()

    def forward(self, input_ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos 2"]:
        positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return self.said(torch.stack([input_ids, positions], -1).float())


def numbered(found: Iterable[Window]) -> list[Window]:
    """The windows, their tokens replaced by the number of the document."""
    numbers: dict[str, int] = {}
    order = count()
    made = []
    for window in found:
        if window.document not in numbers:
            numbers[window.document] = next(order)
        made.append(window._replace(tokens=np.full(len(window.tokens), numbers[window.document])))
    return made


def distinct(batches: Iterable[Batch]) -> float:
    """The mean number of documents in a batch; they are its rows' first numbers."""
    each = [len(batch[:, 0].unique()) for batch in batches if isinstance(batch, Tensor)]
    return sum(each) / len(each)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, nargs="+", default=[2048, 4096])
    arguments.add_argument("--context", type=int, nargs="+", default=[128, 256])
    given = arguments.parse_args()
    model = load("specimen")
    echo = load(Echo(), sites={"echo": ("said", "out", "batch pos d")})
    for context in given.context:
        text = numbered(corpus(model, context=context))
        documents = torch.tensor([int(window.tokens[0]) for window in text]).repeat_interleave(context - 1)
        for batch in given.batch:
            drawn = [documents[torch.randint(len(documents), (batch, 1))] for _ in range(10)]
            served = stream(echo, text, "echo", batch)
            plain = stream(echo, text, "echo", batch, spread=0)
            share, before = (distinct(each) / distinct(drawn) for each in (served, plain))
            print(
                f"context {context}, batch {batch}: {share:.3f} of the documents of a shuffle "
                f"({before:.3f} in the text's own order), {distinct(drawn):.0f}; buffer of {served.buffer.size:,} rows"
            )


if __name__ == "__main__":
    main()
