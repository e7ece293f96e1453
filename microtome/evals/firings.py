"""What fired where, in one pass over text: sparse entries in memory, from which scores of single components are taken.

Tokens are numbered window by window, position 0 of each left out: its activations are of another size and the same in
every text. Memory is twelve bytes an entry, L0 entries a token.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.codes import Entries
from microtome.core.component import Dictionary
from microtome.core.trace import Trace


@dataclass(frozen=True, eq=False)
class Columns:
    """Entries component by component, the strongest first. Positive and negative activity are two columns.

    Column 2c is component c where it is positive, 2c + 1 where it is negative; sizes are magnitudes. Column i holds the
    entries starts[i] to starts[i + 1].
    """

    starts: Int[Tensor, "columns_and_one"]
    rows: Int[Tensor, "entries"]
    sizes: Float[Tensor, "entries"]

    def of(self, column: int) -> tuple[Int[Tensor, "fired"], Float[Tensor, "fired"]]:
        """The tokens where a column fires, the strongest first, and how strongly."""
        here = slice(int(self.starts[column]), int(self.starts[column + 1]))
        return self.rows[here].long(), self.sizes[here]

    @cached_property
    def column(self) -> Int[Tensor, "entries"]:
        """Which column each entry belongs to."""
        return torch.arange(len(self.starts) - 1).repeat_interleave(self.starts.diff())

    @cached_property
    def rank(self) -> Int[Tensor, "entries"]:
        """How many entries of its column are at least as strong as each, by order."""
        return torch.arange(len(self.rows)) - self.starts[self.column] + 1


class Firings:
    """The activity of a dictionary at every counted token, as a witness of a survey."""

    def __init__(self, dictionary: Dictionary):
        self.dictionary, self.sites, self.width = dictionary, dictionary.reads, len(dictionary)
        self.tokens = 0
        self._parts: list[Entries] = []

    def see(self, trace: Trace, first_window: int) -> None:
        """Keep what fired in a batch of windows."""
        codes = trace.codes(self.dictionary)
        windows, context = codes.shape
        rows, components, values = codes.entries()
        window, place = rows // context, rows % context
        token = (window + first_window) * (context - 1) + place - 1
        kept = place > 0
        parts = token[kept].int(), components[kept].int(), values[kept].detach()
        self._parts.append(Entries(*(part.cpu() for part in parts)))
        self.tokens += windows * (context - 1)

    @cached_property
    def entries(self) -> Entries:
        """All of them, token by token. Ask when the survey is over."""
        found = Entries(*(torch.cat(parts) for parts in zip(*self._parts, strict=True)))
        self._parts.clear()
        return found

    @cached_property
    def columns(self) -> Columns:
        """The entries by component and sign, the largest of each first."""
        rows, components, values = self.entries
        by_size = values.abs().argsort(descending=True, stable=True)
        column = (2 * components + (values < 0).int())[by_size]
        order = by_size[column.argsort(stable=True)]
        counts = torch.bincount(column, minlength=2 * self.width)
        starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        return Columns(starts, rows[order], values[order].abs())

    @cached_property
    def fired(self) -> Int[Tensor, "components"]:
        """On how many tokens each component is active."""
        return torch.bincount(self.entries.components, minlength=self.width)

    def dense(self, components: list[int]) -> Float[Tensor, "tokens chosen"]:
        """The activity of a few components, at every token."""
        found = torch.zeros(self.tokens, len(components))
        for i, component in enumerate(components):
            for column, sign in ((2 * component, 1.0), (2 * component + 1, -1.0)):
                rows, sizes = self.columns.of(column)
                found[rows, i] = sign * sizes.float()
        return found
