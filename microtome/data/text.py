"""Text as documents: from files and folders, JSON lines, the standard library, or a Hugging Face data set.

A document is held out or not by a hash of its name, so that the split is the same on every machine. A file may hold many
documents, parted by `<|endoftext|>`; a long file is cut into sections, so that every text has a held-out part.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from microtome.core.errors import Refusal

Part = Literal["train", "held_out", "all"]
SEPARATOR = "<|endoftext|>"
SECTION = 20_000  # characters
SUFFIXES = (".txt", ".md", ".py", ".rst", ".jsonl")


class Document(NamedTuple):
    """One text with a name that is its own."""

    name: str
    text: str


def held_out(name: str) -> bool:
    """Whether the document of this name belongs to the held-out tenth."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 == 0


def chosen(documents: Iterable[Document], part: Part) -> Iterator[Document]:
    """The documents of one part of the split."""
    wanted = {"train": (False,), "held_out": (True,), "all": (False, True)}[part]
    return (d for d in documents if held_out(d.name) in wanted)


def text(paths: str | Path | Sequence[str | Path], part: Part = "all") -> Iterator[Document]:
    """Documents from files, folders (searched through) and glob patterns, in order of name.

    `.jsonl` files hold one JSON object a line with a "text". Raises Refusal where a path holds nothing to read.
    """
    files = sorted({f for path in ([paths] if isinstance(paths, str | Path) else paths) for f in files_of(Path(path))})
    return chosen((d for f in files for d in documents_of(f)), part)


def files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [f for f in path.rglob("*") if f.suffix in SUFFIXES]
    else:
        parts = path.parts
        fixed = next((i for i, p in enumerate(parts) if "*" in p), len(parts))
        found = [f for f in Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))) if f.is_file()] if fixed < len(parts) else []
    if not found:
        raise Refusal(f"no text at {str(path)!r}; give files or folders with {', '.join(SUFFIXES)}, or a pattern such as 'corpus/*.txt'")
    return found


def documents_of(file: Path) -> Iterator[Document]:
    """The documents of one file, named after it and numbered where there are several."""
    try:
        whole = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(f"{file} is not UTF-8 text (byte {error.start}); convert it, or leave it out") from None
    if file.suffix == ".jsonl":
        texts = [json.loads(line)["text"] for line in whole.splitlines() if line.strip()]
    else:
        texts = [piece for part in whole.split(SEPARATOR) for piece in sections(part.strip("\n"))]
    texts = [t for t in texts if t]
    names = [file.name] if len(texts) == 1 else [f"{file.name}#{i}" for i in range(len(texts))]
    return map(Document, names, texts)


def sections(whole: str) -> Iterator[str]:
    """A long text in sections cut at line ends; a short one as it is."""
    start = 0
    while start < len(whole):
        end = whole.rfind("\n", start + 1, start + SECTION) + 1 if start + SECTION < len(whole) else len(whole)
        end = end if end > start else start + SECTION
        yield whole[start:end]
        start = end


def dataset(name: str, *, split: str = "train", column: str = "text", part: Part = "all") -> Iterator[Document]:
    """Documents of a Hugging Face data set, streamed. Needs the extra `microtome[datasets]`."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise Refusal("reading a data set needs the package `datasets`: pip install 'microtome[datasets]'") from None
    rows = load_dataset(name, split=split, streaming=True)
    return chosen((Document(f"{name}#{i}", row[column]) for i, row in enumerate(rows)), part)
