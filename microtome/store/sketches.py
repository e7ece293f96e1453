"""Sketches: what is known of every component after some text, in a size that does not grow with the text.

Sketches of disjoint windows add: `a + b == b + a`, `(a + b) + c == a + (b + c)`, and the sum of the parts is bit for
bit the sketch of the whole, whoever read which part and in whatever order. So many workers can share a text, and a text
can grow. It holds because nothing here is a rounded sum:

- moments are whole numbers: units and 2^-32ths of each activation and of its square, summed apart;
- a histogram has equal bins from 0 to a power of two, and doubling the range joins bins in pairs;
- the strongest examples, one a window, are ranked by activation and then by place;
- the others are a uniform sample of the windows where the component fires: those whose peak's place has the least hash.

Places are numbered through the whole text, not through a part: place = window * context + position.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Float32, Int, Int16, Int64, Shaped, UInt32, UInt64

from microtome.core.errors import Refusal

TOP, PER_QUANTILE, QUANTILES = 16, 4, 5  # exemplars: the strongest, then a few from each fifth of the ranks
SAMPLE = 60  # windows kept of each component, from which fifths are told
BINS = 64  # of each histogram; between 32 and 64 of them lie below the maximum
NOWHERE = np.uint32(2**32 - 1)  # the place of an empty slot
LEAST = -24  # the exponent of a histogram without entries: the smallest activation that is stored is 2^-24
MOST = 65504.0  # activations are stored in half precision, and larger ones count as this
FRACTION = 2.0**32


@dataclass(frozen=True, eq=False)
class Sketches:
    """One sketch for each of `n` components. `+` joins those of disjoint windows."""

    count: Int64[np.ndarray, "n"]
    moments: Int64[np.ndarray, "n powers 2"]  # of activations and their squares: units, and 2^-32ths
    max: Float32[np.ndarray, "n"]  # 0 where nothing fired, or only below 0
    exponent: Int16[np.ndarray, "n"]  # the histogram ends at 2^exponent
    histogram: Int64[np.ndarray, "n bins"]  # the first bin holds what is below 0
    top_place: UInt32[np.ndarray, "n top"]  # one for each window, strongest first
    top_value: Float32[np.ndarray, "n top"]
    sample_place: UInt32[np.ndarray, "n sample"]  # one for each window, least hash first
    sample_value: Float32[np.ndarray, "n sample"]

    @classmethod
    def of(
        cls,
        place: Int[np.ndarray, "entries"],
        component: Int[np.ndarray, "entries"],
        value: Float[np.ndarray, "entries"],
        components: int,
        context: int,
    ) -> "Sketches":
        """From all activations in whole windows, in any order; no place twice for a component."""
        value = value.astype(np.float64).clip(-MOST, MOST)
        most = np.zeros(components, np.float32)
        np.maximum.at(most, component, value.astype(np.float32))
        exponent = ends(most)
        peaks = strongest_of_windows(place, component, value, context)
        ranked = Ranked(place[peaks].astype(np.uint32), component[peaks], value[peaks].astype(np.float32), components)
        return cls(
            count=np.bincount(component, minlength=components).astype(np.int64),
            moments=moments(component, value, components), max=most, exponent=exponent,
            histogram=histograms(component, value, exponent),
            **named("top", ranked.by_value(TOP)), **named("sample", ranked.by_hash(SAMPLE)),
        )  # fmt: skip

    @classmethod
    def none(cls, components: int) -> "Sketches":
        """Of no text at all: what adding leaves as it is."""
        empty = np.empty(0, np.int64)
        return cls.of(empty, empty, empty.astype(np.float32), components, 1)

    @classmethod
    def joined(cls, parts: "Sequence[Sketches]") -> "Sketches":
        """Of different components, one range after another."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def __len__(self) -> int:
        return len(self.count)

    def __add__(self, other: "Sketches") -> "Sketches":
        """Of both texts together. Raises Refusal for sketches of different numbers of components."""
        if len(self) != len(other):
            raise Refusal(f"sketches of {len(self)} and of {len(other)} components do not add; give one dictionary's")
        exponent = np.maximum(self.exponent, other.exponent)
        tops, samples = (Slots.beside(self, other, name) for name in ("top", "sample"))
        return Sketches(
            count=self.count + other.count, moments=self.moments + other.moments,
            max=np.maximum(self.max, other.max), exponent=exponent,
            histogram=coarser(self, exponent) + coarser(other, exponent),
            **named("top", tops.by_value(TOP)), **named("sample", samples.by_hash(SAMPLE)),
        )  # fmt: skip

    # ------------------------------------------------------------ what is read off

    def rows(self, tokens: int, first: int = 0) -> dict[str, np.ndarray]:
        """What a catalogue says of each component, `tokens` being how many could have fired.

        Exemplars are numbered from place `first` on, at which the catalogue's own text begins.
        """
        sums = self.moments[..., 0] + self.moments[..., 1] / FRACTION
        return {
            "count": self.count, "density": (self.count / max(1, tokens)).astype(np.float32), "max": self.max,
            "sum": sums[:, 0], "sum_squares": sums[:, 1], "histogram": self.histogram.astype(np.int32),
            "histogram_end": np.exp2(self.exponent.astype(np.float32)), "exemplars": self.exemplars(first),
        }  # fmt: skip

    def exemplars(self, first: int = 0) -> Int64[np.ndarray, "n slots"]:
        """Places: the strongest, then a few of each fifth of the sampled ranks; -1 for an empty slot."""
        ranked = Slots(self.sample_place, self.sample_value).by_value(SAMPLE).place
        chosen = fifths()[(ranked != NOWHERE).sum(1)]
        spread = np.where(chosen < 0, NOWHERE, np.take_along_axis(ranked, chosen.clip(0), 1))
        found = np.concatenate([self.top_place, spread], 1)
        return np.where(found == NOWHERE, -1, found.astype(np.int64) - first)

    def arrays(self) -> dict[str, np.ndarray]:
        """By name, for a file."""
        return {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Slots:
    """For each component as many places as there is room for, empty ones last, and the activation at each."""

    place: UInt32[np.ndarray, "n slots"]
    value: Float32[np.ndarray, "n slots"]

    @classmethod
    def beside(cls, one: Sketches, other: Sketches, name: str) -> "Slots":
        pairs = ([getattr(s, f"{name}_{part}") for s in (one, other)] for part in ("place", "value"))
        return cls(*(np.concatenate(pair, 1) for pair in pairs))

    def by_value(self, size: int) -> "Slots":
        return self._first(np.lexsort((self.place, -self.value)), size)

    def by_hash(self, size: int) -> "Slots":
        return self._first(np.argsort(hashed(self.place), 1, kind="stable"), size)

    def _first(self, order: Int[np.ndarray, "n slots"], size: int) -> "Slots":
        order = order[:, :size]
        return Slots(np.take_along_axis(self.place, order, 1), np.take_along_axis(self.value, order, 1))


@dataclass(frozen=True)
class Ranked:
    """Places of components as a list, to be put into slots."""

    place: UInt32[np.ndarray, "peaks"]
    component: Int[np.ndarray, "peaks"]
    value: Float32[np.ndarray, "peaks"]
    components: int

    def by_value(self, size: int) -> Slots:
        return self._slots(np.lexsort((self.place, -self.value, self.component)), size)

    def by_hash(self, size: int) -> Slots:
        return self._slots(np.lexsort((hashed(self.place), self.component)), size)

    def _slots(self, order: Int[np.ndarray, "peaks"], size: int) -> Slots:
        """The first `size` of each component; `order` keeps components together."""
        component = self.component[order]
        counts = np.bincount(component, minlength=self.components)
        start = np.cumsum(counts) - counts
        rank = np.arange(len(order)) - start[component]
        order, component, rank = order[rank < size], component[rank < size], rank[rank < size]
        place = np.full((self.components, size), NOWHERE, np.uint32)
        value = np.full((self.components, size), -np.inf, np.float32)
        place[component, rank], value[component, rank] = self.place[order], self.value[order]
        return Slots(place, value)


def named(name: str, slots: Slots) -> Mapping[str, np.ndarray]:
    return {f"{name}_place": slots.place, f"{name}_value": slots.value}


def hashed(place: Shaped[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """A different number for each place, in no order (the finaliser of SplitMix64); for an empty slot the largest."""
    mixed = place.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.where(place == NOWHERE, np.uint64(2**64 - 1), mixed ^ (mixed >> np.uint64(31)))


def strongest_of_windows(
    place: Int[np.ndarray, "entries"],
    component: Int[np.ndarray, "entries"],
    value: Float[np.ndarray, "entries"],
    context: int,
) -> Int[np.ndarray, "peaks"]:
    """Which entries are their component's strongest of a window, the first of equals."""
    window = place.astype(np.int64) // context
    order = np.lexsort((place, -value, window, component))
    if not len(order):
        return order
    changes = (np.diff(window[order]) != 0) | (np.diff(component[order]) != 0)
    return order[np.concatenate([[True], changes])]


def moments(
    component: Int[np.ndarray, "entries"], value: Float[np.ndarray, "entries"], components: int
) -> Int64[np.ndarray, "components 2 2"]:
    """Sums of activations and of squares. Of one component 2^31 activations can be summed."""
    found = np.zeros((components, 2, 2), np.int64)
    for power, each in enumerate((value, value**2)):
        units = np.floor(each)
        np.add.at(found[:, power, 0], component, units.astype(np.int64))
        np.add.at(found[:, power, 1], component, ((each - units) * FRACTION).astype(np.int64))
    return found


def ends(most: Float[np.ndarray, "n"]) -> Int16[np.ndarray, "n"]:
    """The least powers of two above these."""
    return np.where(most > 0, np.frexp(most)[1].clip(LEAST), LEAST).astype(np.int16)


def histograms(
    component: Int[np.ndarray, "entries"], value: Float[np.ndarray, "entries"], exponent: Int16[np.ndarray, "n"]
) -> Int64[np.ndarray, "n bins"]:
    bins = np.floor(np.ldexp(value, -exponent[component].astype(np.int32)) * BINS).clip(0, BINS - 1)
    flat = component.astype(np.int64) * BINS + bins.astype(np.int64)
    return np.bincount(flat, minlength=len(exponent) * BINS).reshape(-1, BINS).astype(np.int64)


def coarser(sketches: Sketches, exponent: Int16[np.ndarray, "n"]) -> Int64[np.ndarray, "n bins"]:
    """The histograms over a range 2^k times as long: each bin takes in 2^k."""
    by = (exponent - sketches.exponent).astype(np.int64).clip(0, 62)
    flat = np.arange(len(sketches))[:, None] * BINS + (np.arange(BINS) >> by[:, None])
    found = np.zeros(len(sketches) * BINS, np.int64)
    np.add.at(found, flat.ravel(), sketches.histogram.ravel())
    return found.reshape(-1, BINS)


def fifths() -> Int64[np.ndarray, "counts slots"]:
    """Which ranks are shown, strongest first, of so many as are sampled: evenly within each fifth; -1 for none."""
    found = np.full((SAMPLE + 1, QUANTILES * PER_QUANTILE), -1, np.int64)
    for count in range(SAMPLE + 1):
        for fifth, part in enumerate(np.array_split(np.arange(count), QUANTILES)):
            chosen = part[np.linspace(0, len(part) - 1, min(PER_QUANTILE, len(part))).astype(int)]
            found[count, fifth * PER_QUANTILE : fifth * PER_QUANTILE + len(chosen)] = chosen
    return found
