"""A small run folder that looks like a real one: the standard library's own code, and components with known rules.

Component i answers to the i-th commonest token (strongly), and weakly to whatever follows it. Every 25th is dead, every
seventh has no explanation. Everything is written with the store's own writers.
"""

import heapq
import json
import re
import shlex
import textwrap
import time
from collections import Counter
from json import decoder
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from microtome.core.session import Answered, Firing, Moved
from microtome.store.catalog import COLUMNS_PER_FILE, SCHEMA, exemplar_groups, write_columns
from microtome.store.notes import Explanation, Notes
from microtome.store.records import Figures, Run, Summary

CONTEXT, COMPONENTS, BINS = 64, 300, 40
HOSTILE = 12  # the component whose explanation is written as if by somebody who hopes that it is read as markup
MODULES = (textwrap, shlex, heapq, decoder)
KINDS = ("a statement", "a name", "punctuation", "an operator", "a keyword", "indentation")


def split(text: str) -> list[str]:
    """Tokens as a byte-pair vocabulary would have them: a word keeps the space before it, a line its indentation."""
    return re.findall(r" ?\w{1,9}|\n *|[^\w\s]{1,3}|\s", text)


def corpus() -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """The vocabulary (commonest first), windows of ids, the names of the documents and each window's document."""
    texts = {module.__name__: split(Path(module.__file__).read_text()) for module in MODULES}
    vocabulary = [token for token, _ in Counter(token for text in texts.values() for token in text).most_common()]
    ids, windows, document = {token: id for id, token in enumerate(vocabulary)}, [], []
    for number, text in enumerate(texts.values()):
        for start in range(0, len(text) - CONTEXT, CONTEXT):
            windows.append([ids[token] for token in text[start : start + CONTEXT]])
            document.append(number)
    return vocabulary, np.array(windows, np.int32), list(texts), np.array(document, np.int32)


def activations(windows: np.ndarray, components: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every component, the token numbers where it fires and how strongly."""
    flat, allowed = windows.reshape(-1), np.arange(windows.size) % CONTEXT > 0
    columns = []
    for component in range(components):
        noise = np.random.default_rng(component)
        own = (flat == component) & allowed & (component % 25 != 24)
        after = np.roll(own, 1) & allowed & ~own
        value = own * noise.gamma(6, 0.5, flat.size) + after * noise.gamma(2, 0.3, flat.size)
        token = np.flatnonzero(value)
        columns.append((token, value[token].astype(np.float16).astype(np.float32)))
    return columns


def exemplars(token: np.ndarray, value: np.ndarray) -> np.ndarray:
    ranked, groups = token[np.argsort(-value, kind="stable")], exemplar_groups()
    chosen = np.full(len(groups), -1, np.int64)
    top = groups.count("top")
    chosen[: min(top, len(ranked))] = ranked[:top]
    rest = ranked[top:][:: max(1, len(ranked[top:]) // (len(groups) - top) or 1)][: len(groups) - top]
    chosen[top : top + len(rest)] = rest
    return chosen


def rows(columns: list[tuple[np.ndarray, np.ndarray]], vocabulary: int, seen: int) -> dict[str, np.ndarray]:
    count, most = np.array([len(t) for t, _ in columns]), [float(v.max(initial=0)) for _, v in columns]
    noise, size = np.random.default_rng(0), len(columns)
    directions = noise.normal(size=(size, 16))
    directions[1::2] = directions[::2][: len(directions[1::2])] + 0.6 * noise.normal(size=directions[1::2].shape)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = directions @ directions.T - 2 * np.eye(size)
    near = np.argsort(-cosine, axis=1)[:, :10]
    values = np.sort(noise.gamma(2, 1.2, (size, 10)), axis=1)[:, ::-1]
    return {
        "count": count.astype(np.int64),
        "sum": np.array([v.sum() for _, v in columns], np.float64),
        "sum_squares": np.array([(v**2).sum() for _, v in columns], np.float64),
        "max": np.array(most, np.float32),
        "density": (count / seen).astype(np.float32),
        "histogram": np.array(
            [np.histogram(v, BINS, (0, m or 1))[0] for (_, v), m in zip(columns, most, strict=True)], np.int32
        ),
        "exemplars": np.array([exemplars(t, v) for t, v in columns]),
        "logits_top": noise.integers(0, vocabulary, (size, 10)).astype(np.int32),
        "logits_top_value": values.astype(np.float32),
        "logits_bottom": noise.integers(0, vocabulary, (size, 10)).astype(np.int32),
        "logits_bottom_value": (-0.7 * values).astype(np.float32),
        "neighbours": near.astype(np.int32),
        "neighbour_cosine": np.take_along_axis(cosine, near, 1).astype(np.float32),
        "position": directions[:, :2].astype(np.float32),
    }


def sentence(component: int, token: str) -> str:
    if component == HOSTILE:
        return "<img src=x onerror=alert(1)> in a tag"
    shown = token.replace("\n", "↵").replace(" ", "·")
    return f"Fires on the token “{shown}” as {KINDS[component % 6]}, and weakly on what follows."


def explanation(component: int, token: str) -> Explanation:
    score = 0.99 - 0.45 * (component / COMPONENTS) ** 1.5
    return Explanation(
        component, "rule", sentence(component, token),
        score, score - 0.03, min(1.0, score + 0.02), 0.5, max(0.5, score - 0.12), 120 - component // 4, 480,
        {"conditions": [f"token is {token!r}", f"kind is {KINDS[component % 6]!r}"], "candidates": 412, "depth": 2},
    )  # fmt: skip


def write_catalog(folder: Path, components: int = COMPONENTS) -> None:
    folder.mkdir(parents=True)
    vocabulary, windows, documents, document = corpus()
    columns = activations(windows, components)
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    labels = np.zeros((*windows.shape, 1), np.uint8)
    save_file({"tokens": windows, "document": document, "labels": labels}, folder / "windows.safetensors")
    for file in range(-(-components // COLUMNS_PER_FILE)):
        write_file(folder, file, columns[file * COLUMNS_PER_FILE : (file + 1) * COLUMNS_PER_FILE])
    seen = windows.shape[0] * (CONTEXT - 1)
    save_file(rows(columns, len(vocabulary), seen), folder / "components.safetensors")
    explained = [i for i in range(components) if i % 7 != 6 and i % 25 != 24 and i < len(vocabulary)]
    Notes(folder / "notes.sqlite").put(explanation(i, vocabulary[i]) for i in explained)
    manifest = {"schema": SCHEMA, "components": components, "context": CONTEXT, "documents": documents}
    manifest |= {"labels": ["in a string"], "text": "Python standard library, held-out modules", "tokens": seen}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_file(folder: Path, file: int, columns: list[tuple[np.ndarray, np.ndarray]]) -> None:
    first = file * COLUMNS_PER_FILE
    component = np.concatenate([np.full(len(token), first + i) for i, (token, _) in enumerate(columns)])
    token, value = (np.concatenate([column[part] for column in columns]) for part in (0, 1))
    write_columns(folder, file, token, component, value)


def run_record(stage: str, site: str = "resid_post.2") -> Run:
    return Run(
        command="dissect", arguments={"tokens": 2_000_000, "width": COMPONENTS, "k": 32, "seed": 0}, model="specimen",
        site=site, created="2026-08-14T09:30:00Z", version="0.1.0", stage=stage,
    )  # fmt: skip


def summary() -> Summary:
    baselines = {
        "random": Figures(
            explained_variance=0.21, l0=32, dead_fraction=0.0, ce_recovered=0.34, explained_fraction=0.04
        ),
        "pca": Figures(explained_variance=0.71, l0=32, dead_fraction=0.0, ce_recovered=0.72, explained_fraction=0.11),
        "neurons": Figures(
            explained_variance=0.48, l0=32, dead_fraction=0.02, ce_recovered=0.55, explained_fraction=0.19
        ),
    }
    return Summary(
        model="specimen", site="resid_post.2", width=COMPONENTS, k=32, tokens=2_000_000, seconds=1284.0,
        peak_memory_bytes=2_100_000_000, explained_variance=0.893, l0=31.7, dead_fraction=0.04, ce_recovered=0.967,
        explained_fraction=0.62, baselines=baselines,
    )  # fmt: skip


def training_log() -> str:
    steps = range(0, 4001, 20)
    lines = [
        json.dumps({
            "step": step, "tokens": step * 512, "loss": 0.12 + 0.9 * 0.998**step,
            "explained_variance": 0.9 - 0.8 * 0.997**step,
            "l0": 32.0, "dead_fraction": 0.3 * 0.999**step, "learning_rate": 3e-4,
        })
        for step in steps
    ]  # fmt: skip
    return "\n".join(lines) + '\n{"step": 4020, "lo'


def write_run(folder: Path, components: int = COMPONENTS) -> Path:
    """A finished run."""
    run_record("done").write(folder)
    summary().write(folder)
    (folder / "training.jsonl").write_text(training_log())
    write_catalog(folder / "catalog", components)
    return folder


def write_unfinished(folder: Path) -> Path:
    """A run that stopped while it harvested."""
    run_record("harvest", "resid_post.4").write(folder)
    return folder


class SampleSession:
    """Fires by the rule of the sample's components, on text split as the sample's was."""

    def __init__(self, folder: Path, seconds: float = 0.0):
        time.sleep(seconds)
        self.vocabulary = {
            token: id for id, token in enumerate(json.loads((folder / "catalog/vocabulary.json").read_text()))
        }

    def fire(self, text: str, top: int) -> Firing:
        tokens = split(text)
        rows = [self.row(tokens, place)[:top] for place in range(len(tokens))]
        return Firing(tokens, [[c for c, _ in row] for row in rows], [[v for _, v in row] for row in rows])

    def row(self, tokens: list[str], place: int) -> list[tuple[int, float]]:
        ids = [self.vocabulary.get(token, COMPONENTS) for token in tokens[max(0, place - 1) : place + 1]]
        fired = [(id, 3.0 if near == len(ids) - 1 else 0.7) for near, id in enumerate(ids) if id < COMPONENTS]
        return sorted(fired, key=lambda pair: -pair[1]) if place else []

    def activity(self, text: str, component: int) -> tuple[list[str], list[float]]:
        if component >= COMPONENTS:
            raise ValueError(f"component {component} is outside 0..{COMPONENTS - 1}")
        tokens = split(text)
        return tokens, [dict(self.row(tokens, place)).get(component, 0.0) for place in range(len(tokens))]


class SampleGraphSession:
    """Foretells that each node loses what the changed ones lost, its own place in the list times; it loses half."""

    def intervene(self, changes: dict[str, float], watch: list[str], hold_attention: bool) -> Answered:
        if "9_9_9" in changes:
            raise ValueError("graph.json has no node '9_9_9'; choose one of those that the page shows")
        lost = sum(by - 1 for by in changes.values())
        share = 0.5 if hold_attention else 0.25
        columns = [(name, lost * place) for place, name in enumerate(watch, 1) if name not in changes]

        def moved(target: bool) -> Moved:
            rows = [row for row in columns if row[0].startswith("3_") == target]
            names, foretold = [name for name, _ in rows], [amount for _, amount in rows]
            known = 1.0 if len(rows) > 1 else None
            return Moved(names, [2.0] * len(rows), foretold, [share * amount for amount in foretold], known, known)

        return Answered(moved(True), moved(False))
