"""How much a network learns from what it has read so far: the loss of late tokens less that of early ones.

Olsson et al. 2022, In-context Learning and Induction Heads (arXiv 2209.11895), take the 500th token less the 50th; in
short rows, the last few less the first few.
"""

from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import Refusal

EARLY, LATE = slice(1, 5), slice(-8, None)  # of the next-token losses; the very first has nothing before it


def in_context_score(
    losses: Float[Tensor, "rows tokens"], early: slice = EARLY, late: slice = LATE
) -> Float[Tensor, ""]:
    """The mean loss of late tokens less that of early ones, in nats: negative where context helps.

    Raises Refusal where a row is so short that its late tokens begin no later than its early ones.
    """
    length = losses.shape[-1]
    first, last = (range(length)[which] for which in (early, late))
    if not first or not last or last[0] <= first[0]:
        raise Refusal(f"rows of {length} losses have no tokens that come late; give longer rows")
    return losses[..., late].mean() - losses[..., early].mean()
