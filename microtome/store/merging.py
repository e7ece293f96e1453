"""Catalogues of parts of a text joined into the one that a single pass over the whole text would have written.

Each part was made by a worker of its own, or on a day of its own; they share the dictionary, and each says which window
of the text it begins with. Columns follow one another, sketches add (`sketches.py`), the rest is the dictionary's and
the same in all.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from microtome.core.errors import Refusal
from microtome.store.catalog import Catalog, clear, write_columns, write_rest
from microtome.store.sketches import Sketches


def merge(parts: Sequence[Catalog], into: Path) -> Catalog:
    """Join catalogues of adjoining windows, given in any order. Explanations are not taken along.

    Raises Refusal where windows are missing or double, or where the parts are not of one dictionary and vocabulary.
    """
    parts = sorted(parts, key=first_window)
    refuse_strangers(parts)
    refuse_gaps(parts)
    clear(into)
    for file in parts[0].files:
        join_columns(parts, file, into)
    sketches = sum((part.sketches() for part in parts), Sketches.none(len(parts[0])))
    own = sketches.rows(1)
    rows = {name: row for name, row in parts[0].components.items() if name not in own}
    documents = list(dict.fromkeys(name for part in parts for name in part.manifest["documents"]))
    about = {
        "first_window": first_window(parts[0]), "text": parts[0].manifest.get("text", ""), "documents": documents,
        "labels": parts[0].manifest["labels"],
    }  # fmt: skip
    return write_rest(into, sketches, rows, joined_windows(parts, documents), parts[0].vocabulary, about)


def first_window(part: Catalog) -> int:
    return part.manifest.get("first_window", 0)


def length(part: Catalog) -> int:
    return len(part.windows["tokens"])


def refuse_strangers(parts: Sequence[Catalog]) -> None:
    if not parts:
        raise Refusal("there are no catalogues to join; give at least one")
    for part in parts[1:]:
        for name in ("components", "context", "labels"):
            one, other = parts[0].manifest[name], part.manifest[name]
            if one != other:
                raise Refusal(
                    f"{parts[0].folder} has {name} {one} and {part.folder} has {other}; join parts of one catalogue"
                )
        if part.vocabulary != parts[0].vocabulary or not same_geometry(parts[0], part):
            raise Refusal(
                f"{part.folder} is of another dictionary or vocabulary than {parts[0].folder}; join parts of one"
            )


def same_geometry(one: Catalog, other: Catalog) -> bool:
    return np.array_equal(one.components["neighbours"], other.components["neighbours"])


def refuse_gaps(parts: Sequence[Catalog]) -> None:
    """`parts` are in the order of their first windows."""
    for before, after in pairwise(parts):
        end, start = first_window(before) + length(before), first_window(after)
        if end != start:
            wrong = "are double" if start < end else "are missing"
            raise Refusal(
                f"{before.folder} ends before window {end} and {after.folder} begins with {start}: windows {wrong}; "
                "give every part of the text once"
            )


def join_columns(parts: Sequence[Catalog], file: int, into: Path) -> None:
    found, start = [], 0
    for part in parts:
        token, component, value = part.all_columns(file)
        found.append((token.astype(np.int64) + start * part.context, component, value))
        start += length(part)
    token, component, value = (np.concatenate(column) for column in zip(*found, strict=True))
    write_columns(into, file, token, component, value)


def joined_windows(parts: Sequence[Catalog], documents: list[str]) -> dict[str, np.ndarray]:
    number = {name: n for n, name in enumerate(documents)}
    renumbered = [
        np.array([number[name] for name in part.manifest["documents"]], np.int32)[part.windows["document"]]
        for part in parts
    ]
    rest = {name: np.concatenate([part.windows[name] for part in parts]) for name in ("tokens", "labels")}
    return {**rest, "document": np.concatenate(renumbered)}
