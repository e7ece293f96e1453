"""Print what each architecture reached in a finished study, in Markdown, best explained first at each site.

python scripts/recipes_table.py runs/study-architectures
"""

import json
import sys
from pathlib import Path

from microtome.studies.architectures import Outcome, words

COLUMNS = ("recipe", "writes at", "explained variance", "L0", "never fired", "loss recovered", "seconds", "what it is")


def outcomes(folder: Path) -> list[Outcome]:
    lines = (folder / "outcomes.jsonl").read_text().splitlines()
    return [Outcome(**json.loads(line)["found"]) for line in lines if line]


def table(found: list[Outcome]) -> str:
    ordered = sorted(found, key=lambda o: (o.site, -o.explained))
    lines = [row(*COLUMNS), row("---", "---", *["---:"] * 5, "---")]
    return "\n".join([*lines, *(row(*cells(o)) for o in ordered)])


def cells(o: Outcome) -> tuple[str, ...]:
    figures = (f"{o.explained:.3f}", f"{o.l0:.1f}", f"{o.never_fired:.1%}", f"{o.ce_recovered:.1%}", f"{o.seconds:.0f}")
    return (f"`{o.name}`", f"`{o.site}`", *figures, words(o.name))


def row(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"


if __name__ == "__main__":
    print(table(outcomes(Path(sys.argv[1]))))
