"""The standard library as text: its modules, without its tests, the same split for every Python."""

from pathlib import Path

from microtome.data.stdlib import modules
from microtome.data.text import held_out


def library(root: Path) -> Path:
    files = {
        "ast.py": b"x", "json/__init__.py": b"y", "json/decoder.py": b"z", "test/test_ast.py": b"t",
        "unittest/test/a.py": b"t",
        "idlelib/idle_test/b.py": b"t", "encodings/cp037.py": b"t", "site-packages/numpy/c.py": b"t",
        "old.py": b"\xe9", "notes.txt": b"n",
    }  # fmt: skip
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_modules_are_named_by_their_dotted_names_and_tests_are_left_out(tmp_path: Path) -> None:
    assert list(modules(root=library(tmp_path))) == [("ast", "x"), ("json", "y"), ("json.decoder", "z")]


def test_this_pythons_library_is_split_by_names_and_holds_no_tests() -> None:
    names, kept = ([d.name for d in modules(part)] for part in ("train", "held_out"))
    assert len(names) > 300 and len(kept) > 30 and not set(names) & set(kept)
    assert all(held_out(n) for n in kept) and not any(held_out(n) for n in names)
    assert names == sorted(names) and not any(
        part in ("test", "tests", "encodings") for n in names + kept for part in n.split(".")
    )
