"""Write the README's file tree: every file of the project with what it says of itself in its first sentence.

    python scripts/file_tree.py

A Python file's sentence opens its docstring, a web source's its first comment; the few files that cannot say anything
of themselves are spoken for here. Empty files, locks and built files are left out.
"""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree: python scripts/file_tree.py -->\n```\n", "```\n<!-- end of tree -->"
COMMENTS = {
    ".ci/run": "What a clean checkout must pass.",
    "CHANGELOG.md": "What changed, version by version.",
    "CONTRIBUTING.md": "How to set up, test and write.",
    "LICENSE": "Apache License 2.0.",
    "Makefile": "make demo, make test and their kin.",
    "README.md": "This page.",
    "constraints.txt": "The versions that everything was tested with.",
    "docs/architecture.md": "The one idea, the floors, what lies on disk, and why.",
    "docs/index.md": "Where to find what.",
    "docs/commands.md": "Every command with its arguments, files and exit codes.",
    "docs/notebooks/first_look.ipynb": "From loading a model to steering it, in ten cells.",
    "pyproject.toml": "The package, and the settings of its tools.",
    "web/index.html": "The page's frame.",
    "web/openapi.json": "The server's API, from which the page's types are made.",
    "web/package.json": "What the page is built with.",
    "web/src/main.ts": "Where the page starts.",
    "web/svelte.config.js": "Settings of Svelte.",
    "web/vite.config.ts": "How the page is built.",
}
LEFT_OUT = re.compile(r"(\.gitignore|package-lock\.json|tsconfig\.json|openapi\.d\.ts|\.svg|\.woff2|\.npz)$")
GATHERED = {  # folders told in one line
    "docs/schemas": "A JSON Schema for every file that commands write.",
    "docs/pictures": "Pictures of the pages.",
    "web/public": "The icon, and the licence of the fonts.",
    "microtome/models/specimen": "The built-in model, in Hugging Face's format.",
    "microtome/toys/trained": "Toys that ship trained; scripts/train_toys.py makes them anew.",
}


def files() -> list[str]:
    """Every file of the project, one for each gathered folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = sorted(set(listed.stdout.splitlines()))
    folders = {folder for folder in GATHERED if any(f.startswith(f"{folder}/") for f in found)}
    kept = [
        f
        for f in found
        if (ROOT / f).exists() and not LEFT_OUT.search(f) and not any(f.startswith(f"{g}/") for g in GATHERED)
    ]
    return sorted(
        [f for f in kept if f in COMMENTS or (ROOT / f).stat().st_size] + [f"{g}/" for g in folders], key=order
    )


def order(path: str) -> tuple:
    """Files before folders, each by name; the package first."""
    parts = path.rstrip("/").split("/")
    tops = ["microtome", "web", "scripts", "tests", "docs", ".ci"]
    top = tops.index(parts[0]) if parts[0] in tops else -1
    return (top, *[(i < len(parts) - 1, part) for i, part in enumerate(parts)])


def comment(path: str) -> str:
    """The sentence that a file opens with. Raises LookupError where it has none."""
    if path.rstrip("/") in GATHERED:
        return GATHERED[path.rstrip("/")]
    if path in COMMENTS:
        return COMMENTS[path]
    text = (ROOT / path).read_text(encoding="utf-8")
    said = (ast.get_docstring(ast.parse(text)) or "") if path.endswith(".py") else first_comment(text)
    if not said:
        raise LookupError(f"{path} does not say what it is: give it a docstring, or a line in scripts/file_tree.py")
    return re.split(r"(?<=[.!?]) |\n", " ".join(said.split("\n\n")[0].split()))[0]


def first_comment(text: str) -> str:
    found = re.search(r"^\s*(?://|#) (.+)$|/\* (.+?) \*/", text, re.MULTILINE)
    return next((group for group in found.groups() if group), "") if found else ""


def tree() -> str:
    lines, above = [], []
    for path in files():
        *folders, name = path.rstrip("/").split("/")
        name += "/" if path.endswith("/") else ""
        shared = next(
            (i for i, pair in enumerate(zip(folders, above, strict=False)) if pair[0] != pair[1]),
            min(len(folders), len(above)),
        )
        lines += [f"{'  ' * i}{folders[i]}/" for i in range(shared, len(folders))]
        above = folders
        lines.append(f"{'  ' * len(folders) + name:<34} {comment(path)}")
    return "\n".join(lines) + "\n"


def with_tree(readme: str) -> str:
    """The README with the tree as it is now."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + tree() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(with_tree(page.read_text(encoding="utf-8")), encoding="utf-8")
