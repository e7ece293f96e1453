"""Print the table of figures of finished runs in Markdown, so that every number in a text comes from a command.

python scripts/figures.py runs/specimen
"""

import sys
from pathlib import Path

from microtome.store.records import Figures, Summary

ROWS = {"random": "random dictionary", "pca": "principal components", "neurons": "the layer's neurons"}
COLUMNS = ("explained variance", "cross-entropy recovered", "L0", "dead", "explained")


def table(summary: Summary) -> str:
    lines = [row("", *COLUMNS), row("---", *["---:"] * len(COLUMNS)), row("**this dictionary**", *cells(summary))]
    lines += [row(ROWS[name], *cells(figures)) for name, figures in summary.baselines.items()]
    return "\n".join([*lines, "", caption(summary)])


def row(*entries: str) -> str:
    return f"| {' | '.join(entries)} |"


def cells(figures: Figures) -> list[str]:
    def share(x: float | None) -> str:
        return "" if x is None else f"{x:.1%}"

    return [
        f"{figures.explained_variance:.3f}", share(figures.ce_recovered), f"{figures.l0:.1f}",
        share(figures.dead_fraction), share(figures.explained_fraction),
    ]  # fmt: skip


def caption(summary: Summary) -> str:
    return (
        f"`{summary.model}` at `{summary.site}`: {summary.width:,} latents, k {summary.k}, "
        f"{summary.tokens:,} training tokens, "
        f"{summary.seconds:.0f} s, peak memory {summary.peak_memory_bytes / 1e9:.1f} GB."
    )


if __name__ == "__main__":
    print("\n\n".join(table(Summary.read(Path(folder))) for folder in sys.argv[1:] or ["runs/specimen"]))
