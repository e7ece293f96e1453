"""A dictionary in place of the network, each of its components kept as far as a mask says, row by row.

What the dictionary misses is one more component, with a mask of its own.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.core.codes import DenseCodes
from microtome.core.component import Dictionary
from microtome.core.editing import Edit, leading
from microtome.core.site import Selection, Site
from microtome.core.trace import Trace


@dataclass(frozen=True, eq=False)
class RowMasked(Edit):
    """x̂(mask · codes) + rest · (x - x̂): a mask for every row and component, and one for the dictionary's error."""

    dictionary: Dictionary
    mask: Float[Tensor, "... components"]
    rest: Float[Tensor, "... 1"]
    replaces: ClassVar[bool] = True
    along_width: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return self.dictionary.reads

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        codes = arrived.codes(self.dictionary).dense()
        made, masked = (self.dictionary.rebuild(DenseCodes(c), arrived) for c in (codes, codes * self.mask))
        return (masked + self.rest * (self.dictionary.target(arrived) - made))[leading(self.site, selection)]

    def __str__(self) -> str:
        return f"mask {type(self.dictionary).__name__} row by row at {self.site}"
