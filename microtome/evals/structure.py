"""Rows of the card on components among themselves: which may be left out together, which are made of others."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from microtome.core.model import Model
from microtome.evals import combinations, decomposability
from microtome.evals.card import OWN, Asked, Examination
from microtome.evals.combinations import Combinations
from microtome.evals.decomposability import Learn
from microtome.evals.interval import Interval, by_document
from microtome.store.records import CardRow

HALF = "KL(clean || spliced), nats a token, with only the stronger half of a token's components kept:"
WAYS = (
    ("weaker half left out", f"{HALF} all others and the error out", combinations.ALL),
    ("weaker half left out, at random", f"{HALF} others and the error kept by chance", combinations.RANDOM),
    ("weaker half left out, at worst", f"{HALF} others and the error kept as an adversary likes", combinations.WORST),
)  # fmt: skip


def combination_rows(
    found: Examination, model: Model, windows: Int[Tensor, "some"], generator: torch.Generator
) -> Iterator[list[CardRow]]:
    """Divergence where what is said not to matter is left out, on some held-out windows.

    Yields nothing until the last dictionary is measured, but for an empty list after every window.
    """
    sums: dict[str, Tensor] = {}
    for name, asked in found.asked.items():
        parts = []
        measuring = Combinations(asked.dictionary, generator)
        for part in measuring.measuring(model, found.texts[1].tokens[windows]):
            parts.append(part)
            yield []
        sums[name] = by_document(torch.cat(parts), found.document[windows], found.documents)

    def nats(which: int) -> Callable[[str, Asked], Interval]:
        return lambda name, _: found.scored(sums[name], combinations.mean(which))

    yield [found.row("faithfulness", name, "low", about, nats(which)) for name, about, which in WAYS]


def decomposability_rows(found: Examination, learn: Learn, generator: torch.Generator) -> list[CardRow]:
    """How much of written directions a small dictionary over them tells; nothing where there are too few."""

    def told(_: str, asked: Asked) -> Interval | None:
        sums = decomposability.decomposed(asked.dictionary, learn, generator)
        return None if sums is None else found.scored(sums, decomposability.explained)

    row = found.row(
        "structure", "told by a meta-dictionary", "low",
        f"explained variance of held-out directions by a dictionary over the others, {decomposability.NARROWER} times "
        f"narrower, {decomposability.ACTIVE} active; its interval is over directions", told,
    )  # fmt: skip
    return [row] if OWN in row.scores else []
