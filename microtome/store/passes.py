"""A model over text or pictures, as rows: one forward pass, stopped at the last site, serves all sites.

How a tensor becomes rows is read off its site's axes. `batch`, `pos`, `y` and `x` number the rows, in this order; the
other axes, in their own, make up the row:

    batch pos d        a row for each token                 resid_post, mlp_out
    batch pos head d   a row for each token, heads joined   z
    batch d y x        a row for each place of a picture    convolutions
    batch d            a row for each input                 layers of a network of vectors

A site with more than one positional axis (scores, patterns) holds no vector for each position, and is refused.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.fit import Batch
from microtome.core.inputs import Inputs, Tokens
from microtome.core.model import Model, Quickened
from microtome.core.rows import Rows
from microtome.core.site import LEADING, POSITIONAL, Site
from microtome.data.windows import Window
from microtome.store.filters import Filter, Seen, at_positions, usual

Item = Window | Inputs  # windows are gathered into batches; what is a batch of inputs already goes as it is
ENOUGH = 1024  # rows that are all the same, after which no other is waited for
PATIENCE = 100_000  # places dropped without one kept, after which none is waited for


# ---------------------------------------------------------------- rows


def axes_of(site: Site) -> tuple[list[str], list[str]]:
    """The axes that number the rows, and those that make one up. Raises Refusal where the site has no such rows."""
    axes = site.axes.split()
    numbering = [a for a in LEADING if a in axes]
    inside = [a for a in axes if a not in numbering]
    if "batch" not in numbering or not inside or set(inside) & set(POSITIONAL):
        raise Refusal(
            f"{site} has the axes {site.axes!r}; choose a site with one vector for each position, such as resid_post"
        )
    if site.where:
        raise Refusal(f"{site} is a part of {site.name!r}; give the whole site, and choose positions by a filter")
    return numbering, inside


def places_of(site: Site, x: Tensor) -> Float[Tensor, "places d"]:
    """Every place of every input, padding included: a view, where the layout of the tensor allows one."""
    numbering, inside = axes_of(site)
    return rearrange(x, f"{site.axes} -> ({' '.join(numbering)}) ({' '.join(inside)})")


def sizes_of(site: Site, x: Tensor) -> dict[str, int]:
    """The axes that number the rows, each with its size."""
    sizes = dict(zip(site.axes.split(), x.shape, strict=True))
    return {axis: sizes[axis] for axis in axes_of(site)[0]}


def real(sizes: Mapping[str, int], inputs: Inputs) -> Bool[Tensor, "places"]:
    """Which places are not padding."""
    if "pos" in sizes:
        return at_positions(inputs, sizes, slice(None))
    return torch.ones(int(np.prod(list(sizes.values()))), dtype=torch.bool)


def rows_of(site: Site, x: Tensor, inputs: Inputs) -> Float[Tensor, "rows d"]:
    """The rows of a site's tensor, in the order of the batch, padding left out; see the top of this file."""
    return places_of(site, x)[real(sizes_of(site, x), inputs).to(x.device)]


def batch_of(values: Mapping[str, Float[Tensor, "rows _"]]) -> Batch:
    """What a learner is given: the tensor itself of one site, `Rows` of several."""
    return next(iter(values.values())) if len(values) == 1 else Rows(values)


# ---------------------------------------------------------------- passes


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: all places at every site, float32, and which of them are to be served.

    `windows` is how many inputs it was over; `copied` how many rows were copied in making it (summed over sites): none,
    but for layouts and precisions that had to be changed.
    """

    values: dict[str, Float[Tensor, "places _"]]
    kept: Int[Tensor, "rows"]
    windows: int
    dropped: dict[str, int]
    copied: int

    def rows(self, most: int | None = None) -> dict[str, Float[Tensor, "rows _"]]:
        """The rows to be served, or the first of them."""
        return {name: x[self.kept[:most]] for name, x in self.values.items()}


class Reader:
    """A model read at some sites: each batch of inputs makes one pass. It keeps nothing between them."""

    def __init__(
        self,
        model: Model,
        sites: Site | str | Sequence[Site | str],
        filters: Iterable[Filter] | None = None,
        precision: torch.dtype | None = None,
    ):
        """`filters`: by default position 0 is dropped. `precision` is that of the linear layers, by default bfloat16
        where it is quicker; the residual stream stays in the model's own.

        Raises NoSuchSite, and Refusal for no site, the same one twice, or one that does not hold rows.
        """
        given = [sites] if isinstance(sites, Site | str) else list(sites)
        for site in given:
            model.site(site if isinstance(site, str) else site.name)
        self.sites = [model.site(s) if isinstance(s, str) else s for s in given]
        self.model, self.filters = model, usual(self.sites, filters)
        self.device = torch.device(getattr(model, "device", "cpu"))
        self.precision = precision or quick_precision(self.device)
        self._refuse_sites()

    def _refuse_sites(self) -> None:
        names = [site.name for site in self.sites]
        if not names or len(set(names)) < len(names):
            raise Refusal(f"give one site or several, each once, not {', '.join(names) or 'none'}")
        if len({tuple(axes_of(site)[0]) for site in self.sites}) > 1:
            each = ", ".join(f"{site} ({site.axes})" for site in self.sites)
            raise Refusal(f"rows of these sites do not stand for the same places: {each}; read them apart")

    @torch.no_grad()
    def read(self, inputs: Inputs, first: int = 0) -> Pass:
        """One pass, whose first window has this number. Raises NotFinite where a row to be served is not finite."""
        lower = torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)
        with lower, self.model.quickened() if isinstance(self.model, Quickened) else nullcontext():
            trace = self.model.run(inputs, read=self.sites)
        sizes = self._sizes({site: trace[site] for site in self.sites})
        values = {site.name: places_of(site, trace[site]).to(self.device, torch.float32) for site in self.sites}
        copied = sum(len(x) for n, x in values.items() if x.data_ptr() != trace[n].data_ptr())
        wanted, dropped = self._filtered(trace.inputs, sizes, values)
        kept = wanted.nonzero()[:, 0]
        for site in self.sites:
            refuse_not_finite(site, values[site.name], kept, first, len(wanted) // len(inputs))
        return Pass(values, kept, len(inputs), dropped, copied)

    def _sizes(self, tensors: Mapping[Site, Tensor]) -> dict[str, int]:
        each = {site: sizes_of(site, x) for site, x in tensors.items()}
        sizes = next(iter(each.values()))
        if any(other != sizes for other in each.values()):
            said = ", ".join(f"{site}: {' x '.join(map(str, s.values()))}" for site, s in each.items())
            raise Refusal(f"rows of these sites do not stand for the same places ({said}); read them apart")
        return sizes

    def _filtered(
        self, inputs: Inputs, sizes: dict[str, int], values: Mapping[str, Tensor]
    ) -> tuple[Bool[Tensor, "places"], dict[str, int]]:
        """Which places are kept, and how many each filter dropped."""
        wanted, dropped = real(sizes, inputs).to(next(iter(values.values())).device), {}
        for each in self.filters:
            left = wanted & each.keep(Seen(inputs, sizes, values, wanted))
            dropped[str(each)] = int(wanted.sum() - left.sum())
            wanted = left
        return wanted, dropped

    def passes(self, found: Iterable[Item], windows: int, skip: int = 0) -> Iterator[Pass]:
        """A pass over every so many windows, from window number `skip` on."""
        first = skip
        for inputs in batched(after(found, skip), windows):
            yield self.read(inputs, first)
            first += len(inputs)


def quick_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it quicker, else float32."""
    quick = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if quick else torch.float32


def refuse_not_finite(site: Site, x: Tensor, kept: Tensor, first: int, each: int) -> None:
    """`each`: the places of one input."""
    low, high = x.aminmax()  # one look at all places; which of them it was is only asked when something was
    if low.isfinite() and high.isfinite():
        return
    bad = (~x[kept].isfinite().all(1)).nonzero()[:, 0]
    if len(bad):
        window, place = divmod(int(kept[bad[0]]), each)
        raise NotFinite(
            f"{site} holds values that are not finite in window {first + window}, place {place}; "
            "choose another site or precision, or look at that text"
        )


# ---------------------------------------------------------------- inputs


def windows_in(item: Item) -> int:
    """How many rows an item brings to a pass."""
    return 1 if isinstance(item, Window) else len(item)


def after(found: Iterable[Item], skip: int) -> Iterator[Item]:
    """What comes after the first so many windows. Raises Refusal where there are not so many."""
    for item in found:
        if skip <= 0:
            yield item
        skip -= windows_in(item) if skip > 0 else 0
    if skip > 0:
        raise Refusal(f"the text ends {skip} windows before the place where this was left; give the same text again")


def batched(found: Iterable[Item], size: int) -> Iterator[Inputs]:
    """Windows in batches of `size`, the last perhaps smaller; batches of inputs as they come."""
    group: list[Window] = []
    for item in found:
        if isinstance(item, Window):
            group.append(item)
        if group and (len(group) == size or not isinstance(item, Window)):
            yield stacked(group)
            group = []
        if isinstance(item, Inputs):
            yield item
    if group:
        yield stacked(group)


def stacked(group: Sequence[Window]) -> Tokens:
    """Windows of one length as a batch."""
    return Tokens.of(torch.from_numpy(np.stack([w.tokens for w in group])))


# ---------------------------------------------------------------- is there anything to learn


class Inspection:
    """Looks at passes as they come, and refuses those from which nothing can be learned: none kept, or all the same."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self.rows = self.windows = 0
        self.alike: dict[str, Tensor] | None = {}  # the first row of each site that has had no other; None: all have

    def see(self, given: Pass) -> None:
        """Count a pass. Raises Refusal where filters leave nothing, or all rows are the same."""
        for name, count in given.dropped.items():
            self.dropped[name] = self.dropped.get(name, 0) + count
        self.rows, self.windows = self.rows + len(given.kept), self.windows + given.windows
        if not self.rows and sum(self.dropped.values()) >= PATIENCE:
            self._refuse_none()
        if self.alike is not None and len(given.kept):
            self._compare(given.rows())
            if self.rows >= ENOUGH:
                self._refuse_alike()

    def _compare(self, rows: Mapping[str, Tensor]) -> None:
        first = {name: x[0].clone() for name, x in rows.items()} if self.alike == {} else self.alike or {}
        alike = {name: x for name, x in first.items() if bool((rows[name] == x).all())}
        self.alike = alike or None

    def finish(self) -> None:
        """The last has been seen."""
        if not self.windows:
            raise Refusal("the text is empty, or shorter than one context; give more text or a smaller context")
        if not self.rows:
            self._refuse_none()
        if self.rows > 1:
            self._refuse_alike()

    def _refuse_none(self) -> None:
        counts = ", ".join(f"{name}: {count:,}" for name, count in self.dropped.items())
        raise Refusal(f"the filters dropped every place of {self.windows:,} windows ({counts}); loosen one")

    def _refuse_alike(self) -> None:
        if self.alike:
            raise Refusal(
                f"all {self.rows:,} rows of {', '.join(self.alike)} are the same, so there is nothing to learn; "
                "choose another site, or look at the text and the filters"
            )
