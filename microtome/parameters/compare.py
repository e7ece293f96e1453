"""Two sets of components of the same place held against each other: pairs that read and write alike."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.pairing import best_pairs


@dataclass(frozen=True)
class Alike:
    """Pairs of components, the cosines of what they read and write, and the lengths of the second over the first's.

    Signs: a part that reads and writes the opposite is the same part, so a cosine counts by the sign of their product.
    """

    pairs: Int[Tensor, "pairs two"]
    read: Float[Tensor, "pairs"]
    write: Float[Tensor, "pairs"]
    length: Float[Tensor, "pairs"]

    @property
    def mean(self) -> float:
        """The mean over pairs of the product of both cosines."""
        return float((self.read * self.write).mean())


def compare(one: Dictionary, other: Dictionary) -> Alike:
    """Pair the components of two dictionaries of the same place so that they agree best, each used once.

    Raises Refusal where they read or write different widths, or components of a rank above 1.
    """
    mine, theirs = one.directions(), other.directions()
    for a, b in zip(mine, theirs, strict=True):
        if a.shape[-2:] != b.shape[-2:] or a.shape[-2] != 1:
            raise Refusal(f"components of shapes {tuple(a.shape[-2:])} and {tuple(b.shape[-2:])} cannot be compared")
    read, write = (normalize(a[:, 0], dim=-1) @ normalize(b[:, 0], dim=-1).T for a, b in zip(mine, theirs, strict=True))
    rows, columns = best_pairs((read * write).detach())
    sizes = [d.read[:, 0].norm(dim=-1) * d.write[:, 0].norm(dim=-1) for d in (mine, theirs)]
    sign = read[rows, columns].sign()
    length = sizes[1][columns] / sizes[0][rows].clamp(min=1e-12)
    return Alike(torch.stack((rows, columns), 1), sign * read[rows, columns], sign * write[rows, columns], length)
