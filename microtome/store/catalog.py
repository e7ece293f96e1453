"""The catalogue on disk: what every component of a dictionary responds to, by reference to the text it was seen in.

A catalogue is a folder. Text is stored once, as windows of token ids; a component's evidence is its column of the
sparse activation matrix (compressed by column, so that one component is one contiguous slice) and rows of statistics.

    manifest.json                what this is, written last: a folder without it is not a catalogue
    vocabulary.json              the text of every token id
    windows.safetensors          tokens (windows, context), document (windows,), labels (windows, context, labels)
    columns-NNN.safetensors      one range of components: offsets, token, value; entries ordered by token
    components.safetensors       one row per component: statistics, histogram, exemplars, logits, neighbours
    map.safetensors              components as points in a plane, if they were drawn anew
    sketches.safetensors         what of this adds to that of other windows (see sketches.py and merging.py)
    notes.sqlite                 explanations with their scores, searchable (see notes.py)

`token` counts from the start of the windows: token = window * context + position. Position 0 is never counted.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from microtome.core.errors import NoSuchComponent, Refusal
from microtome.store.sketches import PER_QUANTILE, QUANTILES, TOP, Sketches
from microtome.store.whole import reading, whole

SCHEMA = "microtome/catalog/1"
COLUMNS_PER_FILE = 512
SKETCHES, MAP = "sketches.safetensors", "map.safetensors"
OWN_FILES = (
    ".spill-*", "columns-*", "*.safetensors", "manifest.json", ".*.partial", "vocabulary.json", "notes.sqlite*",
)  # fmt: skip
KINDS = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "U16": np.uint16, "I32": np.int32,
    "U32": np.uint32, "I64": np.int64, "U64": np.uint64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """All activations of one component: token numbers in ascending order, and the values there."""

    token: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class Example:
    """A window around an activation, in plain values. `group` is "top" or a fifth of the ranks, "q1" (weakest) up."""

    group: str
    window: int
    position: int
    document: str
    tokens: list[str]
    values: list[float]


class NoCatalog(Refusal, FileNotFoundError):
    """A folder that is no catalogue, or not a whole one."""


class Catalog:
    """A catalogue opened for reading: everything by memory map, nothing loaded before it is asked for."""

    def __init__(self, folder: Path):
        manifest = folder / "manifest.json"
        if not manifest.exists():
            raise NoCatalog(
                f"{folder} holds no manifest.json: it is no catalogue, or its writing was cut off; write it again"
            )
        with reading(manifest, "write the catalogue again"):
            self.folder, self.manifest = folder, json.loads(manifest.read_text())
        if self.manifest.get("schema") != SCHEMA:
            raise NoCatalog(f"{manifest} has schema {self.manifest.get('schema')!r}; this version reads {SCHEMA!r}")

    def __len__(self) -> int:
        return self.manifest["components"]

    @property
    def context(self) -> int:
        return self.manifest["context"]

    @cached_property
    def vocabulary(self) -> list[str]:
        return json.loads((self.folder / "vocabulary.json").read_text())

    @cached_property
    def components(self) -> Mapping[str, np.ndarray]:
        """The rows of statistics: count, sum, sum_squares, max, histogram, exemplars, logits, neighbours."""
        return mapped(self.folder / "components.safetensors")

    @cached_property
    def windows(self) -> Mapping[str, np.ndarray]:
        return mapped(self.folder / "windows.safetensors")

    @property
    def position(self) -> np.ndarray:
        """The map: components as points in a plane, as last drawn; not numbers where they never were."""
        drawn = self.folder / MAP
        if drawn.is_file():
            return mapped(drawn)["position"]
        return self.components.get("position", np.full((len(self), 2), np.nan, np.float32))

    def sketches(self) -> Sketches:
        """What adds to that of other windows. Raises Refusal for a catalogue that was written without."""
        path = self.folder / SKETCHES
        with reading(path, "it is from before catalogues could be joined: write it again"):
            return Sketches(**mapped(path))

    def all_columns(self, file: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (token, component, value) of one range of components, in the order of components and then of tokens."""
        columns = mapped(self.folder / f"columns-{file:03d}.safetensors")
        component = np.repeat(np.arange(COLUMNS_PER_FILE), np.diff(columns["offsets"])) + file * COLUMNS_PER_FILE
        return columns["token"], component, columns["value"]

    @property
    def files(self) -> range:
        """The ranges of components that have a file of columns each."""
        return range(-(-len(self) // COLUMNS_PER_FILE))

    @property
    def tokens_seen(self) -> int:
        """Tokens that could have fired: all but position 0 of each window."""
        windows, context = self.windows["tokens"].shape
        return windows * (context - 1)

    def column(self, component: int) -> Column:
        if not 0 <= component < len(self):
            raise NoSuchComponent(f"component {component} is outside 0..{len(self) - 1}")
        file, place = divmod(component, COLUMNS_PER_FILE)
        with safe_open(self.folder / f"columns-{file:03d}.safetensors", "numpy") as columns:
            start, stop = columns.get_slice("offsets")[place : place + 2].tolist()
            if start == stop:  # safetensors refuses an empty slice at the end
                return Column(np.empty(0, np.uint32), np.empty(0, np.float16))
            return Column(columns.get_slice("token")[start:stop], columns.get_slice("value")[start:stop])

    def active_at(self, tokens: np.ndarray) -> np.ndarray:
        """For every component the sum of its activations at these tokens, as shares of its maximum."""
        found, most = np.zeros(len(self)), np.maximum(self.components["max"], 1e-30)
        for file in self.files if len(tokens) else ():
            token, component, value = self.all_columns(file)
            here = np.isin(token, tokens.astype(np.uint32))
            found += np.bincount(component[here], value[here].astype(np.float64), len(self))
        return found / most

    def examples(self, component: int) -> Iterator[Example]:
        """The exemplars of one component, strongest first within each group."""
        column, rows = self.column(component), self.components
        for place, group in enumerate(exemplar_groups()):
            token = int(rows["exemplars"][component, place])
            if token >= 0:
                yield self.example(column, token, group)

    def example(self, column: Column, token: int, group: str) -> Example:
        window, position = divmod(token, self.context)
        first, last = np.searchsorted(column.token, [window * self.context, (window + 1) * self.context])
        values = np.zeros(self.context, np.float32)
        values[column.token[first:last] - window * self.context] = column.value[first:last]
        ids = self.windows["tokens"][window]
        document = self.manifest["documents"][int(self.windows["document"][window])]
        return Example(group, window, position, document, [self.vocabulary[i] for i in ids], values.tolist())


def exemplar_groups() -> list[str]:
    """The group of each exemplar slot of a component."""
    return ["top"] * TOP + [f"q{q}" for q in range(QUANTILES, 0, -1) for _ in range(PER_QUANTILE)]


def mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, read from disk when looked at. Raises SafetensorError for half a file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            return {name: array_at(path, 8 + size, about) for name, about in header.items()}
        except (ValueError, KeyError, AttributeError) as error:
            raise SafetensorError(f"{path.name}: {error}") from None


def array_at(path: Path, start: int, about: Mapping) -> np.ndarray:
    kind, shape, (first, last) = KINDS[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
    if first == last:  # nothing can be mapped
        return np.empty(shape, kind)
    return np.memmap(path, kind, "r", start + first, shape)


def write_columns(folder: Path, file: int, token: np.ndarray, component: np.ndarray, value: np.ndarray) -> None:
    """Write one range of components from their (token, component, value) triples, in any order."""
    place = component - file * COLUMNS_PER_FILE
    order = np.lexsort((token, place))
    offsets = np.zeros(COLUMNS_PER_FILE + 1, np.int64)
    np.cumsum(np.bincount(place, minlength=COLUMNS_PER_FILE), out=offsets[1:])
    most = np.finfo(np.float16).max
    halves = value[order].clip(-most, most).astype(np.float16)
    with whole(folder / f"columns-{file:03d}.safetensors") as path:
        save_file({"offsets": offsets, "token": token[order].astype(np.uint32), "value": halves}, path)


def write_rest(
    folder: Path,
    sketches: Sketches | None,
    rows: Mapping[str, np.ndarray],
    windows: Mapping[str, np.ndarray],
    vocabulary: list[str],
    about: Mapping,
) -> Catalog:
    """Write what is not columns, the manifest last, and open the catalogue.

    `rows` are those that text does not change; without sketches they are all, and the catalogue cannot be joined.
    """
    count, context = windows["tokens"].shape
    tokens, every = count * (context - 1), dict(rows)
    if sketches is not None:
        save_file(sketches.arrays(), folder / SKETCHES)
        every = sketches.rows(tokens, about["first_window"] * context) | every
    components = {name: np.ascontiguousarray(row) for name, row in every.items()}
    save_file(components, folder / "components.safetensors")
    save_file(dict(windows), folder / "windows.safetensors")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    manifest = {"schema": SCHEMA, "components": len(components["count"]), "context": context, "tokens": tokens, **about}
    with whole(folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1))
    return Catalog(folder)


def write_map(catalog: Catalog, places: np.ndarray) -> None:
    """Put another map in the place of the one that is there."""
    with whole(catalog.folder / MAP) as path:
        save_file({"position": np.ascontiguousarray(places, np.float32)}, path)


def clear(folder: Path) -> None:
    """Make an empty folder of a catalogue, or of what is left of one. Raises Refusal where it holds anything else."""
    other = [f.name for f in folder.glob("*") if f.is_dir() or not any(f.match(own) for own in OWN_FILES)]
    if other:
        raise Refusal(f"{folder} is no catalogue (it holds {other[0]!r}); give a folder that is empty or not there yet")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
