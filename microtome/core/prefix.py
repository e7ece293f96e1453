"""How far the residual stream of an edited run is that of the run without edits: from there it need not run again."""

from collections.abc import Iterable

from microtome.core.errors import Refusal
from microtome.core.model import Model
from microtome.core.site import Site

OF_A_BLOCK = (
    "resid_pre", "attn_in", "q_raw", "k_raw", "q", "k", "v", "scores", "pattern", "z", "attn_out_raw", "attn_out",
    "resid_mid", "mlp_in", "mlp_pre", "mlp_up", "mlp_act", "mlp_out_raw", "mlp_out",
)  # fmt: skip
AFTER_ALL = ("final_norm", "logits")


def untouched(sites: Iterable[Site], last: int) -> int:
    """The last block whose output none of these sites comes before; -1 where even the first block must run.

    `last` is the number of the last block. Sites without a canonical name may be anywhere.
    """
    return min((before(site, last) for site in sites), default=last)


def before(site: Site, last: int) -> int:
    kind, _, number = site.name.rpartition(".")
    if site.name in AFTER_ALL:
        return last
    if not number.isdigit() or kind not in (*OF_A_BLOCK, "resid_post"):
        return -1
    return int(number) - (kind in OF_A_BLOCK)


def last_block(model: Model) -> int:
    """The number of the last block, -1 where the model names none."""
    try:
        return max(site.layer for site in model.sites("resid_post.*") if site.layer is not None)
    except Refusal:
        return -1
