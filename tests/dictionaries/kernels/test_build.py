"""The C library is built where it can be, is missed by nothing, and makes a wheel one for its platform."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from microtome.dictionaries.kernels import build as building
from microtome.dictionaries.kernels.build import CannotBuild, build, fingerprint, library

ROOT = Path(__file__).parents[3]
KERNELS = Path("microtome", "dictionaries", "kernels")
SOURCE = """
int shared(int to) {
    int total = 0;
#pragma omp parallel for reduction(+ : total)
    for (int i = 0; i < to; i++) total += i;
    return total;
}
"""
on_linux = pytest.mark.skipif(
    (sys.platform, os.uname().machine) != ("linux", "x86_64"), reason="the C library is for Linux on x86-64"
)
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    folder.mkdir()
    (folder / "shared.c").write_text(SOURCE)
    return folder


def compiler(folder: Path, name: str, script: str) -> Path:
    """A program that takes the place of a compiler."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_the_fingerprint_is_that_of_the_sources(sources: Path) -> None:
    before = fingerprint(sources)
    assert fingerprint(sources) == before
    (sources / "shared.h").write_text("")
    assert fingerprint(sources) != before


@on_linux
@needs_gcc
def test_a_library_is_built_once_for_its_sources(sources: Path) -> None:
    first = build(sources)
    assert first == library(sources) and first.read_bytes().startswith(b"\x7fELF")
    when = first.stat().st_mtime_ns
    assert build(sources) == first and first.stat().st_mtime_ns == when
    (sources / "shared.c").write_text(SOURCE.replace("+= i", "+= 2 * i"))
    second = build(sources)
    assert list(sources.glob("*.so*")) == [second] != [first], "an older library is never taken for a newer one"


@on_linux
@needs_gcc
def test_it_brings_no_threads_of_its_own(sources: Path) -> None:
    """A second OpenMP beside torch's would be a second pool of threads."""
    made = build(sources).read_bytes()
    assert building.OPENMP in made and b"libgomp" not in made


@on_linux
def test_without_a_compiler_the_remedy_is_told(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CannotBuild, match="there is no C compiler; install gcc, or set CC to one"):
        build(sources)
    assert not library(sources).exists()


@on_linux
def test_what_a_compiler_said_is_told(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = compiler(tmp_path, "failing", "echo 'no such flag' >&2; exit 1")
    monkeypatch.setenv("CC", str(failing))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotBuild, match="failed and said 'no such flag'"):
        build(sources)


@on_linux
def test_another_openmp_is_refused(sources: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What needs the functions of another OpenMP would not load beside torch."""
    other = compiler(tmp_path, "other", ": > shared.o; : > library.so")
    monkeypatch.setenv("CC", str(other))
    monkeypatch.setattr(building, "COMPILERS", ())
    with pytest.raises(CannotBuild, match="another OpenMP than PyTorch; install gcc"):
        build(sources)


def test_other_machines_are_refused_by_name(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.platform, "machine", lambda: "arm64")
    with pytest.raises(CannotBuild, match="for Linux on x86-64, and this is .* on arm64"):
        build(sources)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project laid out as this one is, with a built page and one C source."""
    root = tmp_path / "project"
    for folder in (KERNELS / "native", Path("microtome/browser/static")):
        (root / folder).mkdir(parents=True)
    (root / "microtome/__init__.py").write_text("")
    (root / "microtome/browser/static/index.html").write_text("<!doctype html>")
    (root / KERNELS / "native/shared.c").write_text(SOURCE)
    for file in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE", ".gitignore", KERNELS / "build.py"):
        shutil.copy(ROOT / file, root / file)
    return root


def pack(project: Path, target: str, path: str) -> tuple[Path, str]:
    """What was packed, and what was said."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(project / "dist")]
    environment = {**os.environ, "PATH": path, "CC": ""}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (packed,) = (project / "dist").iterdir()
    return packed, done.stdout + done.stderr


needs_hatchling = pytest.mark.skipif(
    find_spec("hatchling") is None, reason="hatchling is absent: pip install hatchling"
)


@on_linux
@needs_gcc
@needs_hatchling
def test_a_wheel_with_the_library_is_for_its_platform_and_any_python(project: Path) -> None:
    wheel, _ = pack(project, "wheel", os.environ["PATH"])
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    packed = zipfile.ZipFile(wheel)
    names = packed.namelist()
    assert (KERNELS / "native" / library(project / KERNELS / "native").name).as_posix() in names
    assert (KERNELS / "native/shared.c").as_posix() in names, "its fingerprint is checked where it is used"
    described = next(name for name in names if name.endswith(".dist-info/WHEEL"))
    assert b"Root-Is-Purelib: false" in packed.read(described)


@needs_hatchling
def test_a_wheel_without_a_compiler_is_for_all(project: Path, tmp_path: Path) -> None:
    wheel, said = pack(project, "wheel", str(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert "No C library for the sparse step" in said and "PyTorch makes it, more slowly" in said


@on_linux
@needs_gcc
@needs_hatchling
def test_an_editable_install_has_the_library_where_its_sources_are(project: Path) -> None:
    spec = spec_from_file_location("hatch_build", project / "hatch_build.py")
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    described = {"artifacts": []}
    hook.PackageHook(str(project), {}, None, None, str(project), "wheel").initialize("editable", described)
    assert library(project / KERNELS / "native").is_file()
    assert described == {"artifacts": []}, "nothing is packed, so nothing depends on the platform"


@needs_hatchling
def test_a_source_distribution_holds_no_library(project: Path) -> None:
    (project / KERNELS / "native/sparse_step-old.so").write_text("")
    packed, _ = pack(project, "sdist", os.environ["PATH"])
    shutil.unpack_archive(packed, project / "unpacked")
    assert list((project / "unpacked").rglob("shared.c"))
    assert not list((project / "unpacked").rglob("*.so"))
