"""What was here in another run, put here: which places carry what distinguishes a clean prompt from a corrupt one?

    denoise   the corrupt run, one place at a time as in the clean run: where is it enough to restore?
    noise     the clean run, one place at a time as in the corrupt run: where is it needed?

Vig et al. 2020 (arXiv 2004.12265), Meng et al. 2022 (arXiv 2202.05262); on the choice between the two, Heimersheim and
Nanda 2024 (arXiv 2404.15255). A place is a site, or part of one: a position, a head, a query and a key; or a component.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.interchange import swap
from microtome.core.component import Component
from microtome.core.edit import Edit, fill, patch
from microtome.core.effects import Effects, effects
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Resumable
from microtome.core.site import POSITIONAL, Site
from microtome.core.trace import Trace

Place = Site | Component
ROUNDING = 1e-5  # of the measure: batches of other sizes differ by so much


def denoise(
    model: Resumable,
    clean: Inputs,
    corrupt: Inputs,
    measure: Measure,
    places: Iterable[Place],
    *,
    by: Sequence[str] = (),
    rows: int = 256,
) -> Effects:
    """How far the corrupt run is moved when one place at a time is as in the clean run.

    `by` names axes along which every site is taken apart: ("pos",), ("head", "pos"), ("head", "query", "key"). Where
    rows differ in length, positions count back from each row's end. Raises Refusal where the rows of a pair differ in
    length, and where nothing at all moves the measure.
    """
    refuse_other_lengths(clean, corrupt)
    return from_run(model, corrupt, clean, measure, places, by, rows)


def noise(
    model: Resumable,
    clean: Inputs,
    corrupt: Inputs,
    measure: Measure,
    places: Iterable[Place],
    *,
    by: Sequence[str] = (),
    rows: int = 256,
) -> Effects:
    """How far the clean run is moved when one place at a time is as in the corrupt run. Otherwise as `denoise`."""
    refuse_other_lengths(clean, corrupt)
    return from_run(model, clean, corrupt, measure, places, by, rows)


def from_run(
    model: Resumable,
    here: Inputs,
    there: Inputs,
    measure: Measure,
    places: Iterable[Place],
    by: Sequence[str],
    rows: int,
) -> Effects:
    """How far the measure moves on `here` when one place at a time is as in `there`."""
    whole = list(places)
    read = dict.fromkeys(site.whole for place in whole for site in sites_of(place))
    with torch.no_grad():
        source = model.run(there, read=read)
    edits = [edit for place in whole for edit in edits_of(place, source, here, by)]
    found = effects(model, here, edits, measure, rows=rows)
    if found.moved.abs().max() <= ROUNDING * found.before.abs().max().clamp(min=1):
        raise Refusal(
            f"{measure.label} is not moved at all by any of {len(edits)} patches, from {edits[0]} on; they come after "
            "what is measured, or the prompts do not differ there"
        )
    return found


def sites_of(place: Place) -> tuple[Site, ...]:
    """The sites that must be read to patch a place."""
    return place.dictionary.reads if isinstance(place, Component) else (place,)


def edits_of(place: Place, source: Trace, here: Inputs, by: Sequence[str]) -> list[Edit]:
    """The patches of one place, taken apart along the axes of `by` that it has."""
    if isinstance(place, Component):
        whole = swap(place, source)
        axes = [axis for axis in by if axis in whole.site.axes.split()]
        shape = source[place.dictionary.reads[0].whole].shape
        return [whole.at(**where) for where in wheres(whole.site, shape, here, axes)]
    return [patch(part, source) for part in parts(place, source, here, by)]


def parts(site: Site, source: Trace, here: Inputs, by: Sequence[str]) -> list[Site]:
    """A site, taken apart along these axes."""
    missing = [axis for axis in by if axis not in site.axes.split()]
    if missing:
        raise Refusal(f"site {site.name!r} has the axes {site.axes!r}, so it cannot be taken apart by {missing[0]!r}")
    return [site.at(**where) for where in wheres(site, source[site.whole].shape, here, by)]


def wheres(site: Site, shape: torch.Size, here: Inputs, by: Sequence[str]) -> list[dict[str, int]]:
    """Every combination of places along these axes."""
    sizes = dict(zip(site.axes.split(), shape, strict=True))
    choices = [positions(here, sizes[axis]) if axis in POSITIONAL else range(sizes[axis]) for axis in by]
    return [dict(zip(by, chosen, strict=True)) for chosen in product(*choices)]


def positions(inputs: Inputs, size: int) -> range:
    """The positions that all rows have: from the start, or back from the end where rows differ in length."""
    if not isinstance(inputs, Tokens):
        return range(size)
    shortest = int(inputs.lengths.min())
    return range(shortest) if int(inputs.lengths.max()) == shortest else range(-shortest, 0)


def refuse_other_lengths(clean: Inputs, corrupt: Inputs) -> None:
    """Raises Refusal for rows that are no pairs, or pairs whose positions are not each other's."""
    if len(clean) != len(corrupt):
        raise Refusal(f"there are {len(clean)} clean prompts and {len(corrupt)} corrupt ones; give them in pairs")
    if isinstance(clean, Tokens) and isinstance(corrupt, Tokens):
        off = (clean.lengths != corrupt.lengths).nonzero().flatten().tolist()
        if off:
            one, other = int(clean.lengths[off[0]]), int(corrupt.lengths[off[0]])
            raise Refusal(
                f"pair {off[0]} has {one} clean tokens and {other} corrupt ones, so their positions are not each "
                "other's; give prompts of one length"
            )


def recovered(found: Effects, goal: Float[Tensor, "batch"]) -> Float[Tensor, "cells"]:
    """What share of the way from `before` to the goal each cell goes: 0 for nothing, 1 for all. Sums before ratios."""
    way = (goal - found.before).sum()
    if way == 0:
        raise Refusal(f"{found.label} is the same in both runs, so there is nothing to recover")
    return found.moved.sum(1) / way


# ---------------------------------------------------------------- ablations


def mean_ablate(site: Site, trace: Trace) -> Edit:
    """Put here the mean over the rows and real positions of a trace, head by head where there are heads."""
    whole = trace[site.whole]
    axes, where = site.axes.split(), dict(site.where)
    if "query" in axes:
        raise Refusal(f"{site}: a mean of patterns over rows of other lengths is no pattern; patch or zero it")
    averaged = [i for i, axis in enumerate(axes) if axis in ("batch", "pos")]
    real = trace.inputs.mask if isinstance(trace.inputs, Tokens) and "pos" in axes else None
    mean = whole.mean(averaged) if real is None else whole[real].mean(0)
    left = [axis for axis in axes if axis not in ("batch", "pos")]
    chosen = [where.get(axis, slice(None)) for axis in left]
    return fill(site, mean[tuple(list(c) if isinstance(c, tuple) else c for c in chosen)])


def resample(site: Site, trace: Trace, generator: torch.Generator | None = None) -> Edit:
    """Put here what was here in another row, drawn by chance, each row going to one other."""
    count = len(trace.inputs)
    if count < 2:
        raise Refusal("resampling takes from other rows, and there is one row; give at least 2")
    order = torch.randperm(count, generator=generator)
    to = torch.empty_like(order)
    to[order] = order.roll(1)  # one circle through all rows, so none stays where it is
    whole = trace[site.whole][to]
    return patch(site, Trace(trace.inputs, {site.name: whole}, {site.name: site.whole}))
