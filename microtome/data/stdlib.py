"""Python's own standard library as a corpus: real code on every machine that has Python, with labels known exactly.

The modules are read from `sysconfig`'s stdlib path, in order of their names. A hash of the module's name says whether
a module is held out, so the held-out part is the same on every machine and for every version of Python.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from microtome.data.text import Document, Part, chosen

# Character maps are near copies of one another: they would leak from training into the held-out part.
LEFT_OUT = {"encodings", "site-packages", "dist-packages", "__pycache__"}
TEST_SUITES = {"test", "tests", "idle_test"}


def module_name(path: Path, root: Path) -> str:
    """The name by which a file is imported; a package for its `__init__.py`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules(part: Part = "all", root: Path | None = None, test_suites: bool = False) -> Iterator[Document]:
    """The standard library's modules as documents named by their dotted names, in order of name.

    Character maps and installed packages are left out, and the few files that are not UTF-8; so are the test suites,
    which some distributions omit, unless they are asked for.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    left_out = LEFT_OUT if test_suites else LEFT_OUT | TEST_SUITES
    paths = (p for p in root.rglob("*.py") if not left_out & set(p.relative_to(root).parts))
    named = sorted((module_name(p, root), p) for p in paths)
    return chosen((d for name, path in named for d in read(name, path)), part)


def read(name: str, path: Path) -> list[Document]:
    """The file as a document; no document where it is no UTF-8."""
    try:
        return [Document(name, path.read_text(encoding="utf-8"))]
    except UnicodeDecodeError:
        return []
