"""Is the specimen any good? Its bits per byte on held-out modules beside two yardsticks, and its induction heads.

    python scripts/judge_specimen.py [FOLDER] [--json FILE]

The yardsticks: `xz -9` over all held-out modules in one stream (which may look back over all of them, where the model
sees 256 tokens), and a 5-gram model of the same tokens with interpolated Kneser-Ney smoothing, counted on the training
modules (Chen and Goodman 1999, eq. 17-20; one discount per order).
"""

import argparse
import json
import lzma
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from microtome.data import stdlib
from microtome.data.text import Document
from microtome.models.hooked import HookedModel
from microtome.models.load import SPECIMEN, load

ORDER = 5
CONTEXT = 256


def token_streams(model: HookedModel, documents: list[Document]) -> list[Tensor]:
    """Every module's tokens, each begun with the begin-of-text token."""
    settings = {"add_special_tokens": False, "verbose": False}
    texts = [d.text for d in documents]
    begin = model.tokenizer.bos_token_id
    return [torch.tensor([begin, *ids]) for ids in model.tokenizer(texts, **settings)["input_ids"]]


@torch.no_grad()
def model_bits(model: HookedModel, streams: list[Tensor]) -> float:
    """Bits to write the modules: windows of a full context overlap by half, so every token has at least half of one."""
    total, half = 0.0, CONTEXT // 2
    for ids in streams:
        for starts in torch.arange(0, max(1, len(ids) - half), half).split(16):
            rows = [ids[s : s + CONTEXT] for s in starts.tolist()]
            padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
            logits = model.module(padded.clamp(min=0), use_cache=False).logits[:, :-1]
            loss = nn.functional.cross_entropy(logits.transpose(1, 2), padded[:, 1:], reduction="none")
            first = [half - 1 if s else 0 for s in starts.tolist()]
            total += sum(row[skip:].sum().item() for row, skip in zip(loss, first, strict=True))
    return total / math.log(2)


def xz_bits(documents: list[Document]) -> float:
    return 8.0 * len(lzma.compress("".join(d.text for d in documents).encode(), preset=9))


class KneserNey:
    """p(w | h) = max(c(hw) - D, 0) / c(h) + D N(h) / c(h) p(w | h'), lower orders counted by what stands before them."""

    def __init__(self, streams: list[Tensor], vocabulary: int):
        self.vocabulary = vocabulary
        grams = [self.grams(ids, ORDER) for ids in streams]
        codes, counts = np.unique(np.concatenate(grams), return_counts=True)
        self.orders = {}
        for order in range(ORDER, 0, -1):
            self.orders[order] = self.counted(codes, counts)
            codes, counts = (
                np.unique(codes % vocabulary ** (order - 1), return_counts=True) if order > 1 else (codes, counts)
            )

    def grams(self, ids: Tensor, order: int) -> np.ndarray:
        """Every n-gram as one number, the beginning padded with the begin-of-text token."""
        padded = np.concatenate([np.full(order - 1, int(ids[0])), ids.numpy()]).astype(np.int64)
        code = np.zeros(len(ids), np.int64)
        for i in range(order):
            code = code * self.vocabulary + padded[i : i + len(ids)]
        return code[1:]

    def counted(self, codes: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        histories, first, kinds = np.unique(codes // self.vocabulary, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first)
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        discount = ones / max(1, ones + 2 * twos)
        return {
            "codes": codes,
            "counts": counts,
            "histories": histories,
            "totals": totals,
            "kinds": kinds,
            "discount": discount,
        }

    def probabilities(self, ids: Tensor) -> np.ndarray:
        """The probability of each token of a module given the four before it."""
        full = self.grams(ids, ORDER)
        found = np.full(len(full), 1.0 / self.vocabulary)
        for order in range(1, ORDER + 1):
            table, code = self.orders[order], full % self.vocabulary**order
            count = looked_up(table["codes"], table["counts"], code)
            total = looked_up(table["histories"], table["totals"], code // self.vocabulary)
            kinds = looked_up(table["histories"], table["kinds"], code // self.vocabulary)
            d, known = table["discount"], np.maximum(total, 1)
            mixed = np.maximum(count - d, 0) / known + d * kinds / known * found
            found = np.where(total > 0, mixed, found)
        return found


def looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


@torch.no_grad()
def induction_scores(model: HookedModel, length: int = 100, rows: int = 16) -> Tensor:
    """Attention from each token of a repeated random sequence to the one after its earlier copy: (layer, head)."""
    generator = torch.Generator().manual_seed(0)
    half = torch.randint(300, model.module.config.vocab_size, (rows, length), generator=generator)
    ids = torch.cat([torch.full((rows, 1), model.tokenizer.bos_token_id), half, half], 1)
    trace = model.run(ids, read=model.sites("pattern.*"))
    return torch.stack(
        [trace[s].diagonal(offset=1 - length, dim1=2, dim2=3)[..., 1:].mean((0, 2)) for s in trace.sites]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=SPECIMEN)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    model = load(given.folder)
    documents = {part: list(stdlib.modules(part)) for part in ("train", "held_out")}
    streams = {part: token_streams(model, d) for part, d in documents.items()}
    size = sum(len(d.text.encode()) for d in documents["held_out"])
    grams = KneserNey(streams["train"], model.module.config.vocab_size)
    scores = induction_scores(model)
    report = {
        "held_out_bytes": size,
        "held_out_tokens": sum(len(s) - 1 for s in streams["held_out"]),
        "bits_per_byte": {
            "specimen": model_bits(model, streams["held_out"]) / size,
            "five_gram": sum(-np.log2(grams.probabilities(ids)).sum() for ids in streams["held_out"] if len(ids) > 1)
            / size,
            "xz": xz_bits(documents["held_out"]) / size,
        },
        "induction": {
            "best": scores.max().item(),
            "layer": int(scores.argmax()) // scores.shape[1],
            "head": int(scores.argmax()) % scores.shape[1],
        },
    }
    print(json.dumps(report, indent=1))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
