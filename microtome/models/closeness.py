"""How far two tensors of a run are apart: the worst real token, beside the scale of what is summed there."""

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.inputs import Inputs, Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace


def worst(given: Tensor, found: Tensor, scale: list[Tensor]) -> float:
    """The worst token's largest error, over the largest number among what is summed there. nan is infinitely wrong."""
    if not given.numel():
        return 0.0

    def largest(x: Tensor) -> Tensor:
        return unmasked(x).double().abs().reshape(-1, x.shape[-1]).amax(-1)

    error = largest(unmasked(given).double() - unmasked(found).double())
    size = torch.stack([largest(s) for s in scale]).amax(0)
    relative = torch.where(error == 0, error, error / size.clamp_min(torch.finfo(torch.float32).tiny))
    return float(relative.nan_to_num(nan=torch.inf).max())


def unmasked(x: Tensor) -> Tensor:
    """Zero where attention's mask has put the lowest number there is."""
    return x.masked_fill(x <= torch.finfo(x.dtype).min / 2, 0.0)


def scale_of(trace: Trace, site: Site) -> Tensor:
    """The scale of the one row of a site. A score may be a small sum of large products, so the row's largest counts."""
    x = trace[site][0]
    return unmasked(x).abs().amax().expand_as(x) if site.name.startswith("scores.") else x


def mixture(
    pattern: Float[Tensor, "batch head query key"], v: Float[Tensor, "batch pos kv_head d"], heads: int
) -> tuple[Float[Tensor, "batch query head d"], Float[Tensor, "batch query head d"]]:
    """The values as the pattern mixes them, each query head with its key-value head's; and the values' scale."""
    found = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(heads // v.shape[2], 2))
    return found, v.abs().amax((1, 2, 3), True).expand_as(found)


def real(trace: Trace, site: Site, row: int) -> Float[Tensor, "..."]:
    """One row of a site without the places of its padding."""
    x, batch = trace[site][row], trace.inputs
    if not isinstance(batch, Tokens):
        return x
    for i, axis in enumerate(site.axes.split()[1:]):
        x = x.index_select(i, batch.mask[row].nonzero()[:, 0]) if axis in ("pos", "query", "key") else x
    return x


def real_mask(batch: Inputs, logits: Tensor) -> Tensor:
    """What counts of each row's logits: their real places, or all of an image's."""
    return batch.mask[..., None] if isinstance(batch, Tokens) else torch.ones_like(logits)


def single_rows(batch: Inputs) -> list[Inputs]:
    """Each row alone, without its padding."""
    rows = [batch.rows(slice(i, i + 1)) for i in range(len(batch))]
    return [Tokens.of(r.ids[r.mask][None]) if isinstance(r, Tokens) else r for r in rows]
