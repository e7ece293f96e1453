"""The C library of the sparse step, built where there is a compiler: `python -m microtome.dictionaries.kernels.build`.

The build of the package runs this file by its path, before torch or anything else is installed: it imports nothing.
OpenMP's symbols are left open on purpose. They are found in the library that torch has loaded, so that torch and this
share one pool of threads; hence it is loaded after torch, and works with GCC's OpenMP only.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent / "native"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-fopenmp", "-fvisibility=hidden")
COMPILERS = ("cc", "gcc", "clang")
OPENMP = b"GOMP_parallel"  # what GCC's OpenMP calls, and torch's brings


class CannotBuild(RuntimeError):
    """No library can be built here. The message says why; PyTorch's own functions serve without one."""


def library(here: Path = HERE) -> Path:
    """Where the library lies that belongs to the sources in `here`, built or not: its name has their fingerprint."""
    return here / f"sparse_step-{fingerprint(here)}.so"


def fingerprint(here: Path = HERE) -> str:
    """Sixteen hexadecimal digits that differ when a source or a flag does."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted([*here.glob("*.c"), *here.glob("*.h")]):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def build(here: Path = HERE) -> Path:
    """The library, built unless it is there; those of earlier sources go. Raises CannotBuild with the reason."""
    built = library(here)
    if built.is_file():
        return built
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise CannotBuild(f"the C library is for Linux on x86-64, and this is {sys.platform} on {platform.machine()}")
    reasons = []
    for compiler in compilers():
        try:
            return put(compile_with(compiler, here), built)
        except CannotBuild as reason:
            reasons.append(str(reason))
    raise CannotBuild("; ".join(reasons) or "there is no C compiler; install gcc, or set CC to one")


def compilers() -> Iterator[str]:
    """The compilers there are, the one that CC names first."""
    for name in dict.fromkeys([os.environ.get("CC", ""), *COMPILERS]):
        if name and shutil.which(name):
            yield name


def compile_with(compiler: str, here: Path) -> bytes:
    """The bytes of the library, as one compiler makes it. Raises CannotBuild."""
    with tempfile.TemporaryDirectory() as folder:
        run([compiler, *FLAGS, "-c", *map(str, sorted(here.resolve().glob("*.c")))], folder)
        objects = sorted(path.name for path in Path(folder).glob("*.o"))
        run([compiler, "-shared", "-o", "library.so", *objects, "-lm"], folder)
        made = Path(folder, "library.so").read_bytes()
    if OPENMP not in made:
        raise CannotBuild(f"{compiler} has another OpenMP than PyTorch; install gcc")
    return made


def run(command: list[str], folder: str) -> None:
    """Run a command. Raises CannotBuild with the first line of what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[0]
        raise CannotBuild(f"{command[0]} failed and said {said!r}")


def put(made: bytes, place: Path) -> Path:
    """The bytes at their place, whole or not at all."""
    beside = place.with_suffix(f".{os.getpid()}")
    beside.write_bytes(made)
    beside.replace(place)
    for old in place.parent.glob("sparse_step-*.so"):
        if old != place:
            old.unlink()
    return place


if __name__ == "__main__":
    try:
        print(f"The C library of the sparse step is {build()}.")
    except CannotBuild as reason:
        sys.exit(f"The C library of the sparse step could not be built: {reason}.")
