"""Activations of a model over text, written to disk in one pass that stops at the last site asked for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NotFinite
from microtome.core.inputs import Tokens
from microtome.core.model import Model
from microtome.core.site import Site
from microtome.data.windows import Window, grouped
from microtome.store.shards import Activations, ShardWriter


class Harvested(NamedTuple):
    """How far a harvest has come."""

    rows: int
    of: int


@torch.no_grad()
def harvesting(
    model: Model, found: Iterable[Window], site: Site, tokens: int, into: Path, *, batch: int = 32, about: dict | None = None
) -> Iterator[Harvested]:
    """Harvest step by step, yielding after every batch of windows; goes on where an earlier harvest of the same stopped.

    Position 0 of every window is left out. Raises NotFinite where an activation is, and then keeps what came before.
    """
    writer = ShardWriter(into, {"site": site.name, "tokens": tokens, **(about or {})})
    if writer.finished:
        yield Harvested(writer.manifest["rows"], tokens)
        return
    rows = writer.manifest["rows"]
    for group in grouped(islice(found, writer.done, None), batch):
        x = activations(model, group, site)[:, 1:].flatten(0, 1)[: tokens - rows]
        if not x.isfinite().all():
            raise NotFinite(f"{site} holds values that are not finite near window {writer.windows}; try dtype float32, or another site")
        writer.append(x, len(group))
        rows += len(x)
        yield Harvested(rows, tokens)
        if rows >= tokens:
            break
    writer.finish()


def activations(model: Model, group: Iterable[Window], site: Site) -> Float[Tensor, "windows context d"]:
    """Linear layers in bfloat16 where that is quicker (rows are kept in bfloat16 anyway), the residual stream in float32."""
    ids = torch.from_numpy(np.stack([w.tokens for w in group]))
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        return model.run(Tokens.of(ids), read=[site])[site].float()


def harvest(model: Model, found: Iterable[Window], site: Site, tokens: int, into: Path) -> Activations:
    """Harvest to the end and open what was written."""
    for _ in harvesting(model, found, site, tokens, into):
        pass
    return Activations(into)
