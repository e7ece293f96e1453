"""Print the table of figures of finished runs in Markdown, so that every number in a text comes from a command.

python scripts/figures.py runs/specimen
"""

import sys
from pathlib import Path

from microtome.cli.dissect import BASELINES, COLUMNS, cells
from microtome.store.records import Summary


def table(summary: Summary) -> str:
    lines = [row("", *COLUMNS), row("---", *["---:"] * len(COLUMNS)), row("**this dictionary**", *cells(summary))]
    lines += [row(BASELINES[name], *cells(figures)) for name, figures in summary.baselines.items()]
    return "\n".join([*lines, "", caption(summary)])


def row(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"


def caption(summary: Summary) -> str:
    return (
        f"`{summary.model}` at `{summary.site}`: {summary.width:,} latents, k {summary.k}, "
        f"{summary.tokens:,} training tokens, "
        f"{summary.seconds:.0f} s, peak memory {summary.peak_memory_bytes / 1e9:.1f} GB."
    )


if __name__ == "__main__":
    print("\n\n".join(table(Summary.read(Path(folder))) for folder in sys.argv[1:] or ["runs/specimen"]))
