"""Activations of a model over text, written to disk in one pass that stops at the last site asked for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.inputs import Tokens
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.data.windows import Window, grouped
from microtome.store.shards import Activations, ShardWriter


class Harvested(NamedTuple):
    """How far a harvest has come."""

    rows: int
    of: int


def harvesting(
    model: Model,
    found: Iterable[Window],
    site: Site,
    tokens: int,
    into: Path,
    *,
    batch: int = 32,
    about: dict | None = None,
) -> Iterator[Harvested]:
    """Harvest step by step, yielding after every batch of windows; goes on where an earlier one of the same stopped.

    Position 0 of every window is left out. Whatever stops it, what came before is kept. Raises NotFinite where an
    activation is not finite, and Refusal for a site that does not hold one vector for each position.
    """
    if site.axes.split()[:2] != ["batch", "pos"] or len(site.axes.split()) != 3:
        raise Refusal(
            f"{site} has the axes {site.axes!r}; harvest a site with one vector for each position, such as resid_post"
        )
    writer = ShardWriter(into, {"site": site.name, "tokens": tokens, **(about or {})})
    if writer.finished:
        yield Harvested(writer.manifest["rows"], tokens)
        return
    rows = writer.manifest["rows"]
    groups = grouped(islice(found, writer.done, None), batch)
    try:
        while rows < tokens and (group := next(groups, None)):
            x = activations(model, group, site)[:, 1:].flatten(0, 1)[: tokens - rows]
            if not x.isfinite().all():
                raise NotFinite(
                    f"{site} holds values that are not finite near window {writer.windows}; choose another site"
                )
            writer.append(x, len(group))
            rows += len(x)
            yield Harvested(rows, tokens)
    except BaseException:  # an interrupt, too: what was harvested is kept
        writer.flush()
        raise
    writer.finish()


@torch.no_grad()
def activations(model: Model, group: Iterable[Window], site: Site) -> Float[Tensor, "windows context d"]:
    """Linear layers in bfloat16 where that is quicker (rows are kept in it anyway), the residual stream in float32."""
    ids = torch.from_numpy(np.stack([w.tokens for w in group]))
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        return model.run(Tokens.of(ids), read=[site])[site].float()


def harvest(model: Model, found: Iterable[Window], site: Site, tokens: int, into: Path | str) -> Activations:
    """Harvest to the end and open what was written."""
    for _ in harvesting(model, found, site, tokens, Path(into)):
        pass
    return Activations(into)
