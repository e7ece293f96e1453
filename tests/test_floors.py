"""The law of floors: imports point down, and every exception to it stands in this file.

A wing imports core, data, store and the shared rooms below it, never another wing, and never `models`: whoever needs a
model takes anything that satisfies `core/model.py`. Names that only a type checker sees do not count.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "microtome"
EVERYTHING_BELOW = set(
    [
        "core",
        "data",
        "store",
        "interventions",
        "language",
        "parameters",
        "directions",
        "reasoning",
        "models",
        "dictionaries",
        "circuits",
        "vision",
        "dynamics",
        "evals",
        "explain",
        "toys",
    ]
)
FLOORS = {  # what each package may import of the others
    "core": set(),
    "data": {"core"},
    "store": {"core", "data"},
    "models": {"core"},
    "dictionaries": {"core", "store"},
    "interventions": {"core", "data", "store"},
    "language": {"core", "data", "store"},
    "parameters": {"core", "data", "store", "interventions"},
    "directions": {"core", "data", "store", "interventions"},
    "reasoning": {"core", "data", "store", "interventions"},
    "vision": {"core", "data", "store", "interventions"},
    "dynamics": {"core", "data", "store"},
    "evals": {"core", "data", "store", "interventions", "directions"},
    "circuits": {"core", "data", "store"},
    "explain": {"core", "data", "store", "language"},
    "toys": {"core", "data", "store", "models"},
    "browser": {"core", "store"},
    "notebook": {"core", "data", "store"},
    "studies": EVERYTHING_BELOW | {"browser", "notebook"},
    "cli": EVERYTHING_BELOW | {"browser", "studies"},
}
FACE = {"core", "notebook"}  # what `import microtome` itself may import; the rest comes when it is asked for
EXCEPTIONS: dict[tuple[str, str], str] = {}  # (file, package): the reason
# Brought in by one file each, beside the models' own rooms. torch, numpy, einops, jaxtyping are for everyone.
HEAVY = {
    "datasets": {"data/text.py"},
    "umap": {"explain/plane.py"},
    "fastapi": {"browser"},
    "uvicorn": {"browser"},
    "starlette": {"browser"},
    "transformers": {"models", "notebook"},
    "huggingface_hub": {"models", "dictionaries/formats/hub.py"},
    "cyclopts": {"cli"},
    "rich": {"cli"},
    "pydantic": {"store/records", "browser", "cli"},
    "sqlite3": {"store/notes.py", "store/journal.py", "browser"},
    "safetensors": {"store", "browser", "dictionaries/formats/tensor_files.py"},
    "yaml": {"dictionaries/formats/tensor_files.py"},
    "IPython": {"notebook"},
    "tensorboard": {"store/journal_tensorboard.py"},
    "wandb": {"store/journal_wandb.py"},
    "trackio": {"store/journal_trackio.py"},
    "triton": {"dictionaries/kernels/triton_select.py", "dictionaries/kernels/triton_sparse.py"},
}
CORE_IMPORTS = {"torch", "numpy", "einops", "jaxtyping"}
FILES = sorted(p for p in ROOT.rglob("*.py") if "static" not in p.parts)


def imports(path: Path, inside_functions: bool = True) -> Iterator[str]:
    """The modules that a file imports, but for those under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    skipped = {
        n
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for n in ast.walk(test)
    }
    if not inside_functions:
        skipped |= {
            n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
        }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the module"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if module_file(name) else node.module for name in inner)


def module_file(name: str) -> Path | None:
    path = ROOT.parent.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def package_of(path: Path) -> str:
    """The package a file belongs to; a module beside the packages is a package of its own."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    own = package_of(path)
    allowed = FACE if own == "__init__" else FLOORS[own] | {own}
    for module in imports(path):
        parts = module.split(".")
        if parts[0] != "microtome":
            continue
        assert len(parts) > 1, f"{name_of(path)} imports the package itself; name the module"
        assert parts[1] in allowed or (name_of(path), parts[1]) in EXCEPTIONS, (
            f"{name_of(path)} must not import microtome.{parts[1]}"
        )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_come_in_by_one_door(path: Path) -> None:
    for module in imports(path):
        doors = HEAVY.get(module.split(".")[0])
        if doors is not None:
            rooms = {room.as_posix() for room in path.relative_to(ROOT).parents}
            assert doors & {name_of(path), *rooms}, f"{name_of(path)} must not import {module}"


def test_the_core_needs_torch_numpy_einops_and_jaxtyping_alone() -> None:
    found = {m.split(".")[0] for p in FILES if package_of(p) == "core" for m in imports(p)}
    assert found - set(sys.stdlib_module_names) <= CORE_IMPORTS | {"microtome"}


def test_there_are_no_circles() -> None:
    graph = {
        p: {
            q
            for m in imports(p, inside_functions=False)
            if m.startswith("microtome") and (q := module_file(m)) not in (None, p)
        }
        for p in FILES
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(FILES)  # raises CycleError, naming the circle


def test_nothing_unpickles() -> None:
    for path in FILES:
        assert not {m.split(".")[0] for m in imports(path)} & {
            "pickle",
            "cPickle",
            "dill",
            "joblib",
            "shelve",
            "marshal",
        }, path
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            said, settings = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert said != "torch.load" or settings.get("weights_only") == "True", f"{path}: {ast.unparse(call)}"
            assert said not in ("np.load", "numpy.load") or settings.get("allow_pickle") == "False", (
                f"{path}: {ast.unparse(call)}"
            )
            assert settings.get("trust_remote_code") != "True", f"{path}: {ast.unparse(call)}"


def test_no_annotations_are_postponed() -> None:
    """Shapes are checked at run time, so they must be there."""
    assert not [name_of(p) for p in FILES if "from __future__ import annotations" in p.read_text()]
