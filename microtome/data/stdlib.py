"""Python's own standard library as a corpus: real code on every machine that has Python, with labels known exactly.

The modules are read from `sysconfig`'s stdlib path, in order of their names. A hash of the module's name says whether
a module is held out, so the held-out part is the same on every machine and for every version of Python.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from microtome.data.text import Document

# Character maps are tables of numbers, near copies of one another: they would leak from training into the held-out part.
LEFT_OUT = ("encodings", "site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")
HELD_OUT_TENTHS = 1


def held_out(name: str) -> bool:
    """Whether the module of this dotted name belongs to the held-out tenth."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 10 < HELD_OUT_TENTHS


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules(part: str = "all", root: Path | None = None) -> Iterator[Document]:
    """The standard library's modules as documents named by their dotted names, in order of name.

    `part` is "train", "held_out" or "all".
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    wanted = {"train": (False,), "held_out": (True,), "all": (False, True)}[part]
    paths = (p for p in root.rglob("*.py") if not set(p.relative_to(root).parts) & set(LEFT_OUT))
    for name, path in sorted((module_name(p, root), p) for p in paths):
        if held_out(name) in wanted:
            try:
                yield Document(name, path.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                continue
