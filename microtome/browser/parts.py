"""Parts of weights, for their page: figures of all of them as columns, and of one its directions, rows and partners."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel
from safetensors import safe_open

from microtome.browser.cards import finite, numbers, run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun, NotYet
from microtome.core.errors import NoSuchComponent
from microtome.store.records import Endured, TakenApart

FILE = "parts.safetensors"
ENTRIES = 24  # of a row of inputs, those of largest size
NEAR = 8  # tokens before the one that matters, and after it
WIDEST = 256  # of a table of parts by inputs
LONGEST = 4096  # of a direction


class Weight(BaseModel):
    """One weight, a column for each figure of its parts (see `microtome.store.records.PartedWeight`).

    `by_input` is the importance of each part where one input is on alone; empty where that is not known.
    """

    name: str
    reads: int
    writes: int
    alive: int
    size: list[float]
    activation: list[float]
    importance: list[float]
    matters: list[float]
    by_input: list[list[float]]


class PartsPage(BaseModel):
    """A decomposition. Parts are counted through all weights, in order."""

    card: RunCard
    method: str
    settings: dict[str, str]
    importance_is: str
    distance: str
    losses: list[float | None]
    kept: int
    rows: int
    inputs: list[str]
    endured: Endured
    weights: list[Weight]


class Entry(BaseModel):
    """One entry of a row of inputs, or one token of it; `here` marks the token on which the part was looked at."""

    name: str
    value: float
    here: bool


class PartRow(BaseModel):
    """A row on which a part matters."""

    activation: float
    importance: float
    entries: list[Entry]


class Partner(BaseModel):
    """A part that matters on the same rows; `together` is the share of rows of either that are rows of both."""

    part: int
    together: float


class PartCard(BaseModel):
    """One part: what it reads and writes, rows on which it matters, and the parts that matter with it."""

    part: int
    weight: int
    index: int
    read: list[float]
    write: list[float]
    rows: list[PartRow]
    partners: list[Partner]


def parts_page(run: FoundRun) -> PartsPage:
    """The parts of a run. Raises NotYet where there are none, or none that can be read."""
    held = run.record(TakenApart)
    with tensors(run) as file:
        known = set(file.keys())
        weights = [
            Weight(
                name=w.name, reads=w.reads, writes=w.writes, alive=w.alive, size=w.size, activation=w.activation,
                importance=w.importance, matters=w.matters,
                by_input=by_input(file, w.name) if f"{w.name}/alone" in known else [],
            )
            for w in held.weights
        ]  # fmt: skip
    return PartsPage(
        card=run_card(run), method=held.method, settings={k: str(v) for k, v in held.settings.items()},
        importance_is=held.importance_is, distance=held.distance, losses=[finite(v) for v in held.losses],
        kept=held.kept, rows=held.rows, inputs=held.inputs, endured=held.endured, weights=weights,
    )  # fmt: skip


def part_card(run: FoundRun, part: int) -> PartCard:
    """One part. Raises NoSuchComponent for a number that none has."""
    held = run.record(TakenApart)
    total = sum(len(w.size) for w in held.weights)
    if not 0 <= part < total:
        raise NoSuchComponent(f"part {part} is outside 0..{total - 1}")
    weight, index = 0, part
    while index >= len(held.weights[weight].size):
        index -= len(held.weights[weight].size)
        weight += 1
    name = held.weights[weight].name
    with tensors(run) as file:
        near, together = one(file, "partner", part), one(file, "together", part)
        return PartCard(
            part=part, weight=weight, index=index, read=numbers(one(file, f"{name}/read", index)[:LONGEST]),
            write=numbers(one(file, f"{name}/write", index)[:LONGEST]), rows=rows(file, held, name, index),
            partners=[
                Partner(part=int(p), together=float(t)) for p, t in zip(near, together, strict=True) if p >= 0
            ],
        )  # fmt: skip


def tensors(run: FoundRun) -> safe_open:
    """The file of a decomposition's directions and rows, opened. Raises NotYet where it is not there."""
    path: Path = run.folder / FILE
    if not path.is_file() or not run.leads_inside(path):
        raise NotYet(f"This decomposition has no {FILE}. Write it again: microtome decompose.")
    return safe_open(path, "numpy")


def one(file: safe_open, name: str, row: int) -> np.ndarray:
    """One row of a tensor; the rest is not read."""
    return file.get_slice(name)[row]


def by_input(file: safe_open, name: str) -> list[list[float]]:
    """The importance of every part on each input alone."""
    return [numbers(row) for row in file.get_tensor(f"{name}/alone")[:WIDEST]]


def rows(file: safe_open, held: TakenApart, name: str, index: int) -> list[PartRow]:
    """The rows that matter to one part, most important first."""
    example, activation, importance = (
        one(file, f"{name}/{what}", index) for what in ("example", "example_activation", "example_importance")
    )
    found: list[PartRow] = []
    for row, h, g in zip(example.tolist(), activation.tolist(), importance.tolist(), strict=True):
        if row >= 0:
            entries = tokens(held.texts, row) if held.texts else largest(one(file, "rows", row), held.inputs)
            found.append(PartRow(activation=finite(h) or 0.0, importance=finite(g) or 0.0, entries=entries))
    return found


def tokens(texts: list[list[str]], row: int) -> list[Entry]:
    """The token of a row among those about it."""
    window, place = divmod(row, len(texts[0]))
    around = range(max(0, place - NEAR), min(len(texts[0]), place + NEAR + 1))
    return [Entry(name=texts[window][i], value=0.0, here=i == place) for i in around]


def largest(row: np.ndarray, names: list[str]) -> list[Entry]:
    """The entries that are not zero, the largest first."""
    order = np.argsort(-np.abs(row), kind="stable")[:ENTRIES]
    named = dict(enumerate(names))
    return [
        Entry(name=named.get(i, str(i)), value=finite(float(row[i])) or 0.0, here=False)
        for i in order.tolist()
        if row[i]
    ]
