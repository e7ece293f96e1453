"""A text with components whose rule is known, as arrays: what explainers are tried on."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from microtome.explain.conditions import Reading, Rule
from microtome.explain.evidence import Part, Split, split_windows
from microtome.explain.rules import Explainer
from microtome.store.catalog import COLUMNS_PER_FILE, SCHEMA, Catalog, Column, write_columns

WORDS = ["<s>", "def", " self", ".", "(", ")", "\n    ", "\n", " the", " of", "name", " Name"]
WORDS += [" x", "1", '"', ",", " =", "if"]
LABELS = ("in a string", "function name at def", "keyword")
WINDOWS, CONTEXT, DOCUMENTS = 900, 64, 30


def reading(seed: int = 0) -> Reading:
    """Words at random, with labels at random: a place for about one token in three, kinds for one in ten."""
    generator = np.random.default_rng(seed)
    tokens = generator.choice(np.arange(1, len(WORDS)), (WINDOWS, CONTEXT), p=likely(generator))
    tokens[:, 0] = 0
    labels = generator.random((WINDOWS, CONTEXT, len(LABELS))) < [0.35, 0.1, 0.1]
    labels[:, 0] = False
    return Reading(tokens, WORDS, labels, LABELS)


def likely(generator: np.random.Generator) -> np.ndarray:
    weight = generator.random(len(WORDS) - 1) + 0.3
    return weight / weight.sum()


def documents() -> tuple[np.ndarray, list[str]]:
    return np.arange(WINDOWS) * DOCUMENTS // WINDOWS, [f"module_{n}" for n in range(DOCUMENTS)]


def split() -> Split:
    return split_windows(*documents())


def explainer(text: Reading, seed: int = 0) -> Explainer:
    parts = split()
    return Explainer(text, Part(text.tokens, parts.proposal), Part(text.tokens, parts.scoring), seed)


def firing(
    text: Reading, rule: Rule, generator: np.random.Generator, misses: float = 0.0, extra: float = 0.0
) -> Column:
    """A component that fires where a rule holds, but for some misses, and elsewhere by chance."""
    places = np.arange(text.tokens.size)
    holds = rule.holds(text, places)
    fires = np.where(holds, generator.random(len(places)) >= misses, generator.random(len(places)) < extra)
    return column(places[fires & (places % text.context > 0)], generator)


def at_random(text: Reading, share: float, generator: np.random.Generator) -> Column:
    places = np.arange(text.tokens.size)
    return column(places[(generator.random(len(places)) < share) & (places % text.context > 0)], generator)


def column(places: np.ndarray, generator: np.random.Generator) -> Column:
    return Column(places.astype(np.uint32), generator.uniform(0.5, 2.0, len(places)).astype(np.float16))


def catalog(folder: Path, text: Reading, columns: list[Column], prefix: str = "") -> Catalog:
    document, names = documents()
    names = [prefix + name for name in names]
    folder.mkdir(exist_ok=True)
    numbers = np.repeat(np.arange(len(columns)), [len(c.token) for c in columns])
    tokens, values = np.concatenate([c.token for c in columns]), np.concatenate([c.value for c in columns])
    for file in range(-(-len(columns) // COLUMNS_PER_FILE)):
        here = numbers // COLUMNS_PER_FILE == file
        write_columns(folder, file, tokens[here], numbers[here], values[here])
    arrays = {"tokens": text.tokens.astype(np.int32), "document": document.astype(np.int32), "labels": text.labels}
    save_file(arrays, folder / "windows.safetensors")
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    manifest = {"schema": SCHEMA, "components": len(columns), "context": CONTEXT, "documents": names, "labels": LABELS}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Catalog(folder)
