"""Every format there is: recognise what somebody points at, load it, check it; and write in any of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.rows import Rows
from microtome.dictionaries.formats.circuit_tracer import CircuitTracer, CircuitTracerCLT
from microtome.dictionaries.formats.dictionary_learning import DictionaryLearning
from microtome.dictionaries.formats.format import Format, SiteUnknown, Source
from microtome.dictionaries.formats.gemma_scope import GemmaScope
from microtome.dictionaries.formats.gemma_scope_2 import GemmaScope2
from microtome.dictionaries.formats.hub import fetched
from microtome.dictionaries.formats.llama_scope import LlamaScope
from microtome.dictionaries.formats.openai import OpenAI
from microtome.dictionaries.formats.own import Own
from microtome.dictionaries.formats.qwen_scope import QwenScope
from microtome.dictionaries.formats.saelens import SAELens
from microtome.dictionaries.formats.self_check import Found, check
from microtome.dictionaries.formats.sites import site_of
from microtome.dictionaries.formats.sparsify import Sparsify

FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Own(), SAELens(), Sparsify(), DictionaryLearning(), GemmaScope(), GemmaScope2(), LlamaScope(), QwenScope(),
        OpenAI(), CircuitTracer(), CircuitTracerCLT(),
    )
}  # fmt: skip
DEEP = 6  # folders below the one pointed at in which dictionaries are looked for
ENDINGS = (".npz", ".pt", ".pth")  # of files that are a dictionary by themselves


def format_named(name: str) -> Format:
    if name not in FORMATS:
        raise Refusal(f"no format {name!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


def load_any(path: Path | str, *, site: str | None = None, allow_pickle: bool = False) -> Dictionary:
    """A dictionary in any format, from a folder, a file, or the hub (`owner/repository/folder`).

    `site` says where it belongs, for files that do not, and chooses where there are several. Raises Refusal for what no
    format recognises (with each one's reason), for several dictionaries with no choice made, and for pickles unless
    they are allowed.
    """
    return find(path, site=site, allow_pickle=allow_pickle).dictionary


def find(path: Path | str, *, site: str | None = None, allow_pickle: bool = False, rows: Rows | None = None) -> Found:
    """Load a dictionary as `load_any` does, and say what was found; on `rows` it is measured too."""
    found = find_all(path, site=site, allow_pickle=allow_pickle, rows=rows)
    if len(found) > 1:
        raise SiteUnknown(
            f"{path} holds {len(found)} dictionaries, which read {', '.join(where(f.dictionary) for f in found)}; "
            "choose one by its site (--site)"
        )
    return found[0]


def find_all(
    path: Path | str, *, site: str | None = None, allow_pickle: bool = False, rows: Rows | None = None
) -> list[Found]:
    """Every dictionary there: of a set of transcoders, or of a folder of folders; with `site`, those that read it."""
    source = Source(local(path, allow_pickle), allow_pickle, site)
    places = list(recognised(source))
    if not places:
        raise Refusal(f"{path} is in no known format: {reasons(source)}")
    if len(places) > 1:
        places = [(kind, replace(place, site=None)) for kind, place in places]
    found = [f for kind, place in places for f in checked(kind, place, rows)]
    if site is None or len(found) == 1:
        return found
    chosen = [f for f in found if site_of(site) in f.dictionary.reads]
    if not chosen:
        there = ", ".join(where(f.dictionary) for f in found)
        raise Refusal(f"{path} holds no dictionary that reads {site_of(site)}; there are {there}")
    return chosen


def where(dictionary: Dictionary) -> str:
    return " and ".join(map(str, dictionary.reads))


def local(path: Path | str, allow_pickle: bool) -> Path:
    """Where it lies on this machine: a path that exists, or what the hub gives for a name like one of its own."""
    here = Path(path).expanduser()
    if here.exists():
        return here
    name = str(path)
    if "/" in name and not name.startswith((".", "/", "~")):
        return fetched(name, allow_pickle=allow_pickle)
    raise Refusal(
        f"there is nothing at {path}; give a folder or a file with a dictionary, or owner/repository of the hub"
    )


def recognised(source: Source) -> Iterator[tuple[Format, Source]]:
    """What a format knows at this place; where none does, what there is in the folders below, nearest first."""
    level = [source.path]
    for _ in range(DEEP + 1):
        folders = [path for path in level if path.is_dir()]
        files = [path for path in level if path.is_file() and path.suffix in ENDINGS]
        for paths in (folders, files):  # folders first: beside one that is known, a file may be what a training left
            known = [(kind, place) for path in paths if (place := replace(source, path=path)) for kind in kinds(place)]
            if known:
                yield from known
                return
        level = [child for path in folders for child in sorted(path.iterdir())]


def kinds(place: Source) -> list[Format]:
    """The first format that recognises a place, if any."""
    return next(([kind] for kind in FORMATS.values() if kind.why_not(place) is None), [])


def reasons(source: Source) -> str:
    return "; ".join(f"not {kind.name}, for {kind.why_not(source)}" for kind in FORMATS.values())


def checked(kind: Format, place: Source, rows: Rows | None) -> list[Found]:
    published = kind.load(place)
    return [
        check(
            dictionary,
            kind.name,
            subtracts=published.subtracts,
            claims=published.claims,
            notes=published.notes,
            rows=rows,
        )
        for dictionary in published.dictionaries
    ]


def write(dictionaries: Dictionary | Sequence[Dictionary], folder: Path | str, to: str) -> None:
    """Write dictionaries in a format. Raises Refusal for an unknown one, and for what it cannot express."""
    several = [dictionaries] if isinstance(dictionaries, Dictionary) else list(dictionaries)
    format_named(to).write(several, Path(folder))
