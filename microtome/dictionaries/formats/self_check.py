"""Is what was loaded what its file says? Looked at in its numbers, and on activations where there are some."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.errors import NotFinite
from microtome.core.rows import Rows
from microtome.dictionaries.coder import LinearCoder
from microtome.dictionaries.cross_layer import CrossLayerTranscoder
from microtome.dictionaries.sae import SAE

CLEARLY = 0.05  # of explained variance: by so much must the other convention be better to be worth a warning
APART = 0.25  # relative: by so much may the measured L0 differ from what the metadata says


@dataclass(frozen=True)
class Found:
    """What was loaded, and what was found about it, in plain sentences. `warnings` are what may be wrong."""

    dictionary: Dictionary
    format: str
    sentences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    l0: float | None = None
    explained_variance: float | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self.sentences, *(f"warning: {warning}" for warning in self.warnings))


@torch.no_grad()
def check(
    dictionary: Dictionary,
    format_name: str,
    *,
    subtracts: bool | None = None,
    claims: Mapping[str, int | float] | None = None,
    notes: Iterable[str] = (),
    rows: Rows | None = None,
) -> Found:
    """Look at a dictionary that was loaded. Raises NotFinite for numbers that are none.

    `subtracts` is the convention it was read by: whether the decoder's bias is taken from the input. On `rows` the
    other convention is tried too. `claims` is what the metadata says: d_in, width, l0, explained_variance.
    """
    refuse_not_finite(dictionary)
    claims = dict(claims or {})
    said, doubts = [describe(dictionary, format_name)], [*size_doubts(dictionary, claims), *row_doubts(dictionary)]
    if isinstance(dictionary, SAE) and subtracts is not None:
        said.append(f"the decoder's bias is {'taken' if subtracts else 'not taken'} from the input before encoding")
    said += list(notes)
    if rows is None:
        return Found(dictionary, format_name, tuple(said), tuple(doubts))
    l0, explained = measured(dictionary, rows)
    said.append(
        f"on {len(rows)} rows: L0 {l0:.1f}{beside(claims, 'l0')}, explained variance {explained:.3f}"
        f"{beside(claims, 'explained_variance')}"
    )
    doubts += [*l0_doubts(l0, claims), *bias_doubts(dictionary, subtracts, explained, rows)]
    return Found(dictionary, format_name, tuple(said), tuple(doubts), l0, explained)


def refuse_not_finite(dictionary: Dictionary) -> None:
    for name, values in dictionary.state_dict().items():
        bad = int((~values.isfinite()).sum())
        if bad:
            raise NotFinite(f"{name} holds {bad} numbers that are not finite; the file is damaged, fetch it again")


def describe(dictionary: Dictionary, format_name: str) -> str:
    read = ", ".join(map(str, dictionary.reads))
    written = ", ".join(map(str, dictionary.writes))
    at = f"at {read}" if read == written else f"from {read} to {written}"
    return f"{format_name}: {type(dictionary).__name__} {at}, {len(dictionary)} components{kind_of(dictionary)}"


def kind_of(dictionary: Dictionary) -> str:
    activation = getattr(dictionary, "activation", None)
    if activation is None:
        return ""
    k = activation.settings().get("k")
    return f", {type(activation).__name__}" + ("" if k is None else f" of {k}")


def size_doubts(dictionary: Dictionary, claims: Mapping[str, int | float]) -> list[str]:
    real = {"width": len(dictionary), "d_in": width_read(dictionary)}
    return [
        f"the metadata says {name} {claims[name]:g}, and the weights have {size}"
        for name, size in real.items()
        if name in claims and claims[name] != size
    ]


def row_doubts(dictionary: Dictionary) -> list[str]:
    """Components that write nothing, and components that write the same as another."""
    silent = twice = 0
    for rows in rows_written(dictionary):
        empty = rows.norm(dim=1) == 0
        silent, twice = silent + int(empty.sum()), twice + duplicates(rows[~empty])
    found = [f"{silent} components write nothing"] if silent else []
    return [*found, f"{twice} components write exactly what another one writes"] if twice else found


@singledispatch
def rows_written(dictionary: Dictionary) -> list[Float[Tensor, "n d"]]:
    """What each component writes, its sites side by side; in groups that write at different sites."""
    write = dictionary.directions().write.detach().flatten(-2)
    return [write if write.ndim == 2 else write.transpose(0, 1).flatten(1)]


@rows_written.register
def _(dictionary: LinearCoder) -> list[Float[Tensor, "n d"]]:
    return [dictionary.W_dec.detach()]


@rows_written.register
def _(dictionary: CrossLayerTranscoder) -> list[Float[Tensor, "n d"]]:
    return [rows.detach() for rows in dictionary.W_dec]


@singledispatch
def width_read(dictionary: Dictionary) -> int:
    """The width of each site that is read."""
    return dictionary.directions().read.shape[-1]


@width_read.register
def _(dictionary: LinearCoder) -> int:
    return dictionary.W_enc.shape[1] // len(dictionary.reads)


@width_read.register
def _(dictionary: CrossLayerTranscoder) -> int:
    return dictionary.d


def duplicates(rows: Float[Tensor, "n d"]) -> int:
    """How many rows equal an earlier one: equal rows have equal weighted sums, so they sort together."""
    if len(rows) < 2:
        return 0
    mixed = (rows * torch.linspace(1, 2, rows.shape[1], dtype=rows.dtype, device=rows.device).sqrt()).sum(1)
    order = mixed.argsort()
    near = (mixed[order][1:] == mixed[order][:-1]).nonzero()[:, 0]
    return int((rows[order[near]] == rows[order[near + 1]]).all(1).sum())


def measured(dictionary: Dictionary, rows: Rows) -> tuple[float, float]:
    """L0, and 1 - sum |y - ŷ|² / sum |y - mean|² over all rows, summed over the sites written."""
    x, target = dictionary.gather(rows), dictionary.target(rows)
    codes = dictionary.encode(x)
    made = dictionary.decode(codes) + dictionary.bypass(x)
    centred = target.double() - target.double().mean(-2, keepdim=True)
    missed = (target.double() - made.double()).pow(2).sum() / centred.pow(2).sum()
    return codes.l0().item(), 1.0 - missed.item()


def beside(claims: Mapping[str, int | float], name: str) -> str:
    return f" (the metadata says {claims[name]:g})" if name in claims else ""


def l0_doubts(l0: float, claims: Mapping[str, int | float]) -> list[str]:
    said = claims.get("l0")
    if said is None or abs(l0 - said) <= APART * said:
        return []
    return [
        f"L0 is {l0:.1f} where the metadata says {said:g}: the activations may be of another model or site, or in "
        "other units"
    ]


def bias_doubts(dictionary: Dictionary, subtracts: bool | None, explained: float, rows: Rows) -> list[str]:
    if subtracts is None or not isinstance(dictionary, SAE):
        return []
    _, other = measured(other_convention(dictionary, subtracts), rows)
    if other < explained + CLEARLY:
        return []
    way = "not taken" if subtracts else "taken"
    return [
        f"explained variance would be {other:.3f} and not {explained:.3f} if the decoder's bias were {way} from the "
        "input: the file may follow the other convention"
    ]


def other_convention(sae: SAE, subtracts: bool) -> SAE:
    """The dictionary that the same numbers would be, were the decoder's bias treated the other way."""
    other = deepcopy(sae)
    shift = other.W_enc @ other.b_dec
    other.b_enc.data += shift if subtracts else -shift
    return other
