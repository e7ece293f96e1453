"""Activations of a model over text, written to disk in one pass that stops at the last site asked for."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from microtome.core.model import Model
from microtome.core.site import Site
from microtome.store.filters import Filter
from microtome.store.passes import Inspection, Item, Reader
from microtome.store.quantised import BFLOAT16, Codec
from microtome.store.shards import Activations, ShardWriter, part_folder


class Harvested(NamedTuple):
    """How far a harvest has come."""

    rows: int
    of: int


def harvesting(
    model: Model,
    found: Iterable[Item],
    sites: Site | str | Sequence[Site | str],
    tokens: int,
    into: Path,
    *,
    batch: int = 32,
    filters: Iterable[Filter] | None = None,
    stored: Codec = BFLOAT16,
    shard: tuple[int, int] | None = None,
    precision: torch.dtype | None = None,
    about: dict | None = None,
) -> Iterator[Harvested]:
    """Harvest step by step, yielding after every batch of windows; goes on where an earlier one of the same stopped.

    Aligned rows of all sites, `tokens` of them if the text has so many. Without `filters`, position 0 of every window
    is left out. Whatever stops it, what came before is kept.

    `shard=(i, of)` divides the work over machines that share nothing: part i takes every of-th window from the i-th on
    and its share of the tokens, writes into a folder of its own, and is done at once where that says it is finished.

    Raises NotFinite where an activation is not finite, NoSuchSite, and Refusal for a site that does not hold rows, for
    rows that are all the same and where the filters keep none.
    """
    reader = Reader(model, sites, filters, precision)
    part, of = shard or (0, 1)
    folder = part_folder(into, shard)
    tokens = tokens // of + (part < tokens % of)
    writer = ShardWriter(folder, {**description(reader, tokens, part, of), **(about or {})}, stored)
    if writer.finished:
        yield Harvested(writer.manifest["rows"], tokens)
        return
    rows, begun, inspection = writer.manifest["rows"], writer.done, Inspection()
    passes = reader.passes(islice(found, part, None, of), batch, begun)
    try:
        while rows < tokens and (each := next(passes, None)):
            inspection.see(each)
            writer.append(each.rows(tokens - rows), each.windows, each.dropped)
            rows += min(len(each.kept), tokens - rows)
            yield Harvested(rows, tokens)
    except BaseException:  # an interrupt, too: what was harvested is kept
        writer.flush()
        raise
    if inspection.windows and not begun:
        inspection.finish()
    writer.finish()


def description(reader: Reader, tokens: int, part: int, of: int) -> dict:
    """What a harvest must agree on to be gone on with."""
    return {
        "sites": [site.name for site in reader.sites], "tokens": tokens, "part": [part, of],
        "filters": [str(f) for f in reader.filters],
    }  # fmt: skip


def harvest(
    model: Model,
    found: Iterable[Item],
    sites: Site | str | Sequence[Site | str],
    tokens: int,
    into: Path | str,
    *,
    batch: int = 32,
    filters: Iterable[Filter] | None = None,
    stored: Codec = BFLOAT16,
    shard: tuple[int, int] | None = None,
    precision: torch.dtype | None = None,
) -> Activations:
    """Harvest to the end and open what was written (with `shard`, this part alone); see `harvesting`."""
    settings = {"batch": batch, "filters": filters, "stored": stored, "shard": shard, "precision": precision}
    for _ in harvesting(model, found, sites, tokens, Path(into), **settings):
        pass
    return Activations(part_folder(Path(into), shard))
