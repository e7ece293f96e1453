"""Interchange interventions: run a base input with one part as a source input has it, and see whose answer comes out.

A hypothesis says which answer a base should get once a variable has the source's value (its counterfactual). How often
the network gives it is the interchange intervention accuracy: Geiger et al. 2021, Causal Abstractions of Neural
Networks (arXiv 2106.02997), section 3. What is swapped is a whole site, or what some components of a dictionary write.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit, patch, written_site
from microtome.core.errors import Refusal
from microtome.core.inputs import At, Inputs, Tokens
from microtome.core.measure import LOGITS
from microtome.core.model import Model
from microtome.core.replacements import Patch
from microtome.core.site import Selection, Site, spell
from microtome.core.trace import Trace

Z = 1.959964  # of a 95% interval


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """Base inputs, a source for each, and the answer that each base should get with the source's value put into it."""

    base: Inputs
    source: Inputs
    wanted: Int[Tensor, "rows"]

    def __post_init__(self):
        if not len(self.base) == len(self.source) == len(self.wanted):
            raise Refusal(
                f"{len(self.base)} bases, {len(self.source)} sources and {len(self.wanted)} answers do not pair up; "
                "give as many of each"
            )

    def __len__(self) -> int:
        return len(self.base)

    def rows(self, which: slice) -> "Counterfactuals":
        """Some of the pairs."""
        return Counterfactuals(self.base.rows(which), self.source.rows(which), self.wanted[which])

    def parts(self, size: int) -> "list[Counterfactuals]":
        """All of them in their order, at most `size` at once."""
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def batches(
        self, size: int, *, epochs: int = 1, generator: torch.Generator | None = None
    ) -> "Iterator[Counterfactuals]":
        """All of them, `epochs` times over. Each batch is of neighbours; the batches come in an order drawn anew."""
        parts = self.parts(size)
        for _ in range(epochs):
            yield from (parts[i] for i in torch.randperm(len(parts), generator=generator).tolist())


# ---------------------------------------------------------------- what is swapped


@dataclass(frozen=True, eq=False)
class Swap(Edit):
    """What some components write here, as they wrote it in another run: x + sum_i mask_i (a_i' - a_i) d_i.

    All else stays as it arrived, the dictionary's error too. Positions are matched as `patch` matches them.
    """

    dictionary: Dictionary
    source: Trace
    mask: Float[Tensor, "components"]
    replaces: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[Site, ...]:
        return self.dictionary.reads

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        theirs, ours = self.written(self.source), self.written(arrived)
        source = Trace(self.source.inputs, {self.site.name: theirs}, {self.site.name: self.site.whole})
        return Patch(self.site, source).value(part, selection, arrived) - ours[selection.index]

    def written(self, trace: Trace) -> Tensor:
        """What the chosen components write in a run, its axes in the order of the site's."""
        codes = trace.codes(self.dictionary)
        return self.dictionary.decode(codes.scaled(self.mask)).movedim(-1, self.site.width_axis)

    def __str__(self) -> str:
        chosen = self.mask.nonzero()[:, 0].tolist()
        said = f"component {chosen[0]}" if len(chosen) == 1 else f"{len(chosen)} components"
        return f"swap {said} of {type(self.dictionary).__name__} at {self.site}"


@dataclass(frozen=True, eq=False)
class SwapError(Edit):
    """What a dictionary's components do not write here, as in another run: x + (e' - e);  e = x - decode(codes).

    So what goes past the codes belongs to the error. Without a source it becomes zero.
    """

    dictionary: Dictionary
    source: Trace | None
    replaces: ClassVar[bool] = False

    @property
    def needs(self) -> tuple[Site, ...]:
        return (*self.dictionary.reads, self.site.whole)

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        ours = error_of(self.dictionary, arrived)[selection.index]
        if self.source is None:
            return -ours
        error = error_of(self.dictionary, self.source)
        source = Trace(self.source.inputs, {self.site.name: error}, {self.site.name: self.site.whole})
        return Patch(self.site, source).value(part, selection, arrived) - ours

    def __str__(self) -> str:
        verb = "drop" if self.source is None else "swap"
        return f"{verb} the error of {type(self.dictionary).__name__} at {self.site}"


def error_of(dictionary: Dictionary, trace: Trace) -> Tensor:
    """What stands at the written site beyond what the components write, its axes in the order of the site's."""
    site = written_site(dictionary).whole
    return trace[site] - dictionary.decode(trace.codes(dictionary)).movedim(-1, site.width_axis)


def swap(component: Component, source: Trace) -> Edit:
    """Let one component be as active as it was in another run. `source` holds the sites that its dictionary reads."""
    mask = torch.zeros(len(component.dictionary))
    mask[component.index] = 1.0
    return Swap(written_site(component.dictionary), component.dictionary, source, mask)


def swap_all(dictionary: Dictionary, source: Trace, mask: Float[Tensor, "components"]) -> Edit:
    """Let the components whose mask is 1 be as active as they were in another run, all at once."""
    if len(mask) != len(dictionary):
        raise Refusal(f"a mask of {len(mask)} does not fit {len(dictionary)} components; give one number for each")
    return Swap(written_site(dictionary), dictionary, source, mask)


def swap_error(dictionary: Dictionary, source: Trace | None) -> Edit:
    """Let what a dictionary misses be as in another run, which holds the read sites and the written one; or zero."""
    return SwapError(written_site(dictionary), dictionary, source)


@dataclass(frozen=True)
class Interchange:
    """A site or a component, at positions `here` of the base, to be as it is at positions `there` of the source.

    `there` is `here` unless given, counted in each row's own tokens: -1 is the last token of either, however long they
    are. Without `here`, every position takes what the source has at the same one.
    """

    what: Site | Component
    here: At | None = None
    there: At | None = None

    def __post_init__(self):
        if self.here is None and self.there is not None:
            raise Refusal(f"positions {spell(self.there)} of the source have no place to go; give `here` as well")

    @property
    def reads(self) -> tuple[Site, ...]:
        """What must be read of the source."""
        return (self.what.whole,) if isinstance(self.what, Site) else self.what.dictionary.reads

    def edit(self, base: Inputs, source: Trace) -> Edit:
        """The edit that gives the base what the source held, at positions that may differ."""
        if self.here is not None:
            source = aligned(source, base, self.here, self.here if self.there is None else self.there)
        made = patch(self.what, source) if isinstance(self.what, Site) else swap(self.what, source)
        return made if self.here is None else made.at(pos=self.here)

    def __str__(self) -> str:
        return str(self.what) if self.here is None else f"{self.what}, {spell(self.here)}"


def aligned(source: Trace, base: Inputs, here: At, there: At) -> Trace:
    """A source run as though what stood at its positions `there` had stood at positions `here` of the base, else zero.

    Raises Refusal where these are not equally many in some row.
    """
    values = {s.name: moved(s.whole, source, base, here, there) for s in source.sites}
    return Trace(base, values, {s.name: s.whole for s in source.sites})


def moved(site: Site, source: Trace, base: Inputs, here: At, there: At) -> Tensor:
    x, axes = source[site], site.axes.split()
    if "pos" not in axes:
        return x
    sizes = list(x.shape)
    if isinstance(base, Tokens):
        sizes[axes.index("pos")] = base.ids.shape[1]
    put = site.at(pos=here).select(base, torch.Size(sizes))
    taken = site.at(pos=there).select(source.inputs, x.shape)
    if put.rows is None or taken.rows is None or not torch.equal(put.rows, taken.rows):
        raise Refusal(
            f"positions {spell(here)} of the base and {spell(there)} of the source are not equally many in every row "
            f"of {site}; choose as many of each"
        )
    placed = x.new_zeros(sizes)
    placed[put.index] = x[taken.index]
    return placed


# ---------------------------------------------------------------- how often the counterfactual answer comes


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Which rows got the wanted answer. `value` is their share, `interval` Wilson's of 95%, over rows."""

    hits: Bool[Tensor, "rows"]

    @property
    def value(self) -> float:
        """The share of hits."""
        return self.hits.double().mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share."""
        n, p = len(self.hits), self.value
        centre, spread = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, (centre - spread) / (1 + Z * Z / n)), min(1.0, (centre + spread) / (1 + Z * Z / n))

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f})"


@torch.no_grad()
def interchange_accuracy(
    model: Model,
    data: Counterfactuals,
    interchanges: Sequence[Interchange],
    *,
    logits: Site = LOGITS,
    rows: int = 256,
) -> Accuracy:
    """How often the answer is the wanted one once all the interchanges are made together.

    With none it is how often the base gives that answer anyway, beside which the rest is to be seen. The answer is the
    largest of `logits`, at the last token where there are tokens.
    """
    found = [answers(model, part, interchanges, logits).argmax(-1) == part.wanted for part in data.parts(rows)]
    return Accuracy(torch.cat(found))


def answers(
    model: Model, data: Counterfactuals, interchanges: Sequence[Interchange], logits: Site = LOGITS
) -> Float[Tensor, "batch vocab"]:
    """The logits of the bases' answers, with the interchanges made. Gradients flow."""
    edits = []
    if interchanges:
        wanted = dict.fromkeys(site for each in interchanges for site in each.reads)
        source = model.run(data.source, read=list(wanted))
        edits = [each.edit(data.base, source) for each in interchanges]
    place = logits.at(pos=-1) if "pos" in logits.axes.split() else logits
    return model.run(data.base, read=[place.whole], edit=edits)[place]
