"""How far an edited run is the run without edits: up to some block, and up to some column, it need not run again."""

from collections.abc import Iterable

from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model
from microtome.core.site import Site, as_slice

OF_A_BLOCK = (
    "resid_pre", "attn_in", "q_raw", "k_raw", "q", "k", "v", "scores", "pattern", "z", "attn_out_raw", "attn_out",
    "resid_mid", "mlp_in", "mlp_pre", "mlp_up", "mlp_act", "mlp_out_raw", "mlp_out",
)  # fmt: skip
AFTER_ALL = ("final_norm", "logits")
LOOKING_BACK = ("k", "v", "scores", "pattern")


def untouched(sites: Iterable[Site], last: int) -> int:
    """The last block whose output none of these sites comes before; -1 where even the first block must run.

    `last` is the number of the last block. Sites without a canonical name may be anywhere.
    """
    return min((before(site, last) for site in sites), default=last)


def before(site: Site, last: int) -> int:
    """The last block that is done when the pass comes by this site; -1 where nothing can be said."""
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


def unmoved(sites: Iterable[Site], inputs: Inputs) -> int:
    """The first column that one of these sites is about: 0 where one is about a whole row, or may be anywhere.

    Raises NoSuchPosition where a row lacks a position that is named.
    """
    return min(first_column(site, inputs) for site in sites) if isinstance(inputs, Tokens) else 0


def looks_back(site: Site) -> bool:
    """Whether what stands there holds earlier positions too in a pass over the last columns, or may."""
    kind = site.name.rpartition(".")[0] or site.name
    return kind not in (*OF_A_BLOCK, *AFTER_ALL, "resid_post") or kind in LOOKING_BACK


def first_column(site: Site, inputs: Tokens) -> int:
    """The first column that an edit at this site changes: 0 where it may change any."""
    where = dict(site.where)
    if "pos" not in where or looks_back(site):
        return 0
    rows = inputs.rows(as_slice(where["batch"], len(inputs))) if "batch" in where else inputs
    columns = rows.places(where["pos"], inputs.ids.shape[1]).columns
    return int(columns.min()) if len(columns) else 0
