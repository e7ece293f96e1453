"""Text as documents: from files and folders, JSON lines, the standard library, or a Hugging Face data set.

A document is held out or not by a hash of its name, so that the split is the same on every machine. A file may hold
many documents, parted by `<|endoftext|>`; a long file is cut into sections, so that every text has a held-out part.
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
    """One text, named by its path below the folder (or before the pattern) that was given."""

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

    `.jsonl` files hold one JSON object a line with a "text". Raises Refusal where a path holds nothing to read, and,
    when it is come to, for a file that cannot be read as text.
    """
    given = [paths] if isinstance(paths, str | Path) else paths
    named = {file: name for path in reversed(given) for file, name in files_of(Path(path)).items()}
    return chosen((d for file in sorted(named) for d in documents_of(file, named[file])), part)


def files_of(path: Path) -> dict[Path, str]:
    """The files that a path means, each with its name."""
    if path.is_file():
        return {path: path.name}
    parts = path.parts
    fixed = next((i for i, p in enumerate(parts) if set(p) & set("*?[")), len(parts))
    root = Path(*parts[:fixed])
    if path.is_dir():
        root, found = path, [f for f in path.rglob("*") if f.suffix in SUFFIXES]
    else:
        found = list(root.glob(str(Path(*parts[fixed:])))) if fixed < len(parts) else []
    named = {f: f.relative_to(root).as_posix() for f in found if f.is_file()}
    if not named:
        raise Refusal(
            f"no text at {str(path)!r}; give files or folders with {', '.join(SUFFIXES)}, "
            "or a pattern such as 'corpus/*.txt'"
        )
    return named


def documents_of(file: Path, name: str) -> Iterator[Document]:
    """The documents of one file, numbered where there are several."""
    try:
        whole = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(f"{file} is not UTF-8 text (byte {error.start}); convert it, or leave it out") from None
    if file.suffix == ".jsonl":
        texts = [text_of(line, file, number) for number, line in enumerate(whole.split("\n"), 1) if line.strip()]
    else:
        texts = [piece for part in whole.split(SEPARATOR) for piece in sections(part.strip("\n"))]
    texts = [t for t in texts if t]
    names = [name] if len(texts) == 1 else [f"{name}#{i}" for i in range(len(texts))]
    return map(Document, names, texts)


def text_of(line: str, file: Path, number: int) -> str:
    """The text of one line of JSON."""
    try:
        found = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str):
        raise Refusal(f'line {number} of {file} is no JSON object with a "text"; mend it, or leave the file out')
    return found


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
