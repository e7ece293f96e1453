"""The sparse step in C: OpenMP and AVX-512, called through ctypes from a library that is built with the package.

There are two ways to search the encoder for the k largest. The product in bfloat16 is torch's, in blocks of rows into
one buffer, and C selects. The search with bytes (VNNI) multiplies and selects at once, and writes no block. Both only
propose k + 16 candidates, which are scored again in float32, so a coarse search loses nothing as long as the right
ones are among them. On activations with a few outlying dimensions bytes are too coarse (as Dettmers et al. 2022, arXiv
2208.07339, found for matrix products): what the search finds is measured on the first batch and now and then after it,
and below .9999 the product takes over for good.
"""

import ctypes
from abc import ABC, abstractmethod
from functools import cache
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dictionaries.kernels.build import library
from microtome.dictionaries.kernels.parts import Active, Compared, Extra, Kernels, Rate, Weights
from microtome.dictionaries.selection import fast_bfloat16

SPARE = 16  # candidates proposed beyond k
BLOCK = 512  # rows of pre-activations that the product makes at a time
PANEL = 32  # latents that the search with bytes visits at a time (bytes.h)
WIDEST = 65_536  # columns of bytes that a 32-bit sum holds: 255 * 127 * 65,536 < 2^31
LEAST_RECALL = 0.9999
JUDGED = 20_000  # entries that recall is measured on: less would not tell .9999 from 1
RECHECKED = 1_000  # encodes from one measurement of recall to the next

Pointer, Size, Number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Moved(ctypes.Structure):
    _fields_ = [("weight", Pointer), ("mean", Pointer), ("square", Pointer)]


class _Adam(ctypes.Structure):
    _fields_ = [(name, Number) for name in ("rate", "root", "eps", "beta1", "beta2", "rest1", "rest2")]


class _Update(ctypes.Structure):
    _fields_ = [
        *((name, Size) for name in ("rows", "n", "d", "k")),
        *((name, Pointer) for name in ("x", "error", "values", "gradients", "indices")),
        *((name, _Moved) for name in ("encoder", "bias", "decoder")),
        ("adam", _Adam),
        *((name, Pointer) for name in ("slots", "extra_encoder", "extra_bias", "extra_decoder")),
        *((name, Pointer) for name in ("rounded", "packed", "scales", "active")),
    ]


class _Comparison(ctypes.Structure):
    _fields_ = [
        *((name, Pointer) for name in ("target", "decoder", "values", "indices")),
        *((name, Size) for name in ("d", "k")),
        *((name, Pointer) for name in ("error", "products", "squares")),
    ]


class _Search(ctypes.Structure):
    _fields_ = [
        *((name, Pointer) for name in ("x", "bias", "scales", "packed")),
        *((name, Size) for name in ("rows", "n", "d", "keep")),
        ("candidates", Pointer),
    ]


FUNCTIONS = {  # what each takes; each gives an int, which is 0 where it is done and 1 where there was no memory
    "largest_of_rows": [Pointer, ctypes.c_int, Pointer, Size, Size, Size, Pointer],
    "rescore": [Pointer, Pointer, Pointer, Pointer, Size, Size, Size, Size, Pointer, Pointer],
    "compare": [ctypes.POINTER(_Comparison), Size],
    "update": [ctypes.POINTER(_Update)],
    "copy_encoder": [Pointer, Size, Size, Pointer, Pointer, Pointer],
    "search_bytes": [ctypes.POINTER(_Search)],
    "has_avx512": [],
    "has_vnni": [],
    "threads": [],
}


@cache
def _loaded() -> ctypes.CDLL:
    """The library, bound to the threads of torch. Raises OSError where it is not there or does not fit."""
    found = ctypes.CDLL(str(library()))
    for name, arguments in FUNCTIONS.items():
        getattr(found, name).argtypes = arguments
    return found


@cache
def reason() -> str:
    """Why the C library cannot be used here, as the end of a sentence; empty where it can."""
    if not library().is_file():
        return "it is not built; run `python -m microtome.dictionaries.kernels.build`, which needs gcc"
    try:
        found = _loaded()
    except OSError as error:
        return f"it does not load ({error})"
    return "" if found.has_avx512() else "the processor has no AVX-512"


def threads() -> int:
    """How many threads the library shares a loop among: as many as torch, whose pool it uses."""
    return _loaded().threads()


def _call(name: str, *arguments: object) -> None:
    if getattr(_loaded(), name)(*arguments):
        raise MemoryError(f"there was no memory for the scratch of {name}; use a smaller batch")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """As C reads it: of this type, one row after the other."""
    return tensor.detach().to(dtype).contiguous()


class CandidateSearch(ABC):
    """A way to propose candidates, with the copy of the encoder that it reads; `update` keeps the copy fresh."""

    rounded: Tensor | None = None  # the copy in bfloat16, for the product
    packed: Tensor | None = None  # the copy in bytes
    scales: Tensor | None = None

    def reload(self, weights: Float[Tensor, "n d"]) -> None:
        """Copy all of the encoder."""
        n, d = weights.shape
        _call("copy_encoder", _at(weights), n, d, _at(self.rounded), _at(self.packed), _at(self.scales))

    @abstractmethod
    def candidates(
        self, x: Float[Tensor, "rows d"], weights: Float[Tensor, "n d"], bias: Float[Tensor, "n"], keep: int
    ) -> Int[Tensor, "rows keep"]:
        """The `keep` latents that look largest in each row, ascending."""


class ProductSearch(CandidateSearch):
    """Torch's product in the quickest precision, block by block into one buffer, out of which C selects."""

    def __init__(self, weights: Float[Tensor, "n d"]):
        fast = fast_bfloat16(weights.device)
        self.rounded = torch.empty_like(weights, dtype=torch.bfloat16) if fast else None
        self.buffer = weights.new_empty(0, len(weights), dtype=torch.bfloat16 if fast else torch.float32)
        self.reload(weights)

    def candidates(
        self, x: Float[Tensor, "rows d"], weights: Float[Tensor, "n d"], bias: Float[Tensor, "n"], keep: int
    ) -> Int[Tensor, "rows keep"]:
        n, dtype = len(weights), self.buffer.dtype
        if len(self.buffer) < min(BLOCK, len(x)):
            self.buffer = self.buffer.new_empty(min(BLOCK, len(x)), n)
        searched = weights if self.rounded is None else self.rounded
        found = torch.empty(len(x), keep, dtype=torch.int32)
        for rows, kept in zip(x.to(dtype).split(BLOCK), found.split(BLOCK), strict=True):
            scores = torch.mm(rows, searched.T, out=self.buffer[: len(rows)])
            half = dtype == torch.bfloat16
            _call("largest_of_rows", _at(scores), half, _at(bias), len(rows), n, keep, _at(kept))
        return found


class ByteSearch(CandidateSearch):
    """Bytes multiplied and selected from at once; rows and latents are each scaled to their largest entry."""

    def __init__(self, weights: Float[Tensor, "n d"]):
        n, d = weights.shape
        panels = -(-n // PANEL)
        self.packed = torch.full((panels * -(-d // 4) * PANEL * 4,), 128, dtype=torch.uint8)
        self.scales = torch.zeros(panels * PANEL)
        self.reload(weights)

    def candidates(
        self, x: Float[Tensor, "rows d"], weights: Float[Tensor, "n d"], bias: Float[Tensor, "n"], keep: int
    ) -> Int[Tensor, "rows keep"]:
        found = torch.empty(len(x), keep, dtype=torch.int32)
        search = _Search(
            _at(x), _at(bias), _at(self.scales), _at(self.packed), len(x), *weights.shape, keep, _at(found)
        )
        _call("search_bytes", search)
        return found


def _rescored(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    candidates: Int[Tensor, "rows keep"],
    k: int,
) -> Active:
    """The k largest among the candidates, by their float32 scores; ascending by index."""
    (rows, d), keep = x.shape, candidates.shape[1]
    active = Active(torch.empty(rows, k), torch.empty(rows, k, dtype=torch.int64))
    _call("rescore", *map(_at, (x, weights, bias, candidates)), rows, d, keep, k, *map(_at, active))
    return active


def can_search_bytes(d: int) -> bool:
    """Whether the processor multiplies bytes, and sums of d products fit."""
    return not reason() and bool(_loaded().has_vnni()) and d <= WIDEST


def measured_recall(
    x: Float[Tensor, "rows d"], weights: Float[Tensor, "n d"], bias: Float[Tensor, "n"], k: int
) -> float:
    """The share of each row's k largest of relu(x weightsᵀ + bias) that the search with bytes proposes, from 0 to 1.

    Measured on as many rows as have 20,000 entries. Makes the dense product of those rows, in float32.
    """
    x, weights, bias = (_plain(tensor, torch.float32) for tensor in (x[: -(-JUDGED // k)], weights, bias))
    return _recall(ByteSearch(weights), x, weights, bias, k)


def _recall(search: CandidateSearch, x: Tensor, weights: Tensor, bias: Tensor, k: int) -> float:
    keep = min(k + SPARE, len(weights))
    right = found = 0
    for rows in x.split(BLOCK):
        candidates = search.candidates(rows, weights, bias, keep).long()
        scores = torch.addmm(bias, rows, weights.T).relu_()
        last = scores.topk(k, 1).values[:, -1:].clamp(min=torch.finfo(torch.float32).tiny)
        right += int((scores >= last).sum())
        found += int((scores.gather(1, candidates) >= last).sum())
    return found / right if right else 1.0


class NativeKernels(Kernels):
    """The steps in C, for float32 weights on a CPU with AVX-512.

    `search` says how the largest pre-activations are looked for: "int8" with bytes, "bf16" by the product in bfloat16
    (float32 where that is no quicker), None as is best here. Bytes give way to the product once their recall is below
    .9999. Numbers do not depend on how many threads there are.
    """

    def __init__(self, weights: Weights, k: int, search: Literal["int8", "bf16"] | None = None):
        _refuse(weights, k, search)
        super().__init__(Weights(*(w.detach() for w in weights)), k)
        in_bytes = search != "bf16" and can_search_bytes(self.weights.W_enc.shape[1])
        self.search = ByteSearch(self.weights.W_enc) if in_bytes else self._product()
        self.encoded = 0

    @staticmethod
    def available() -> bool:
        """Whether they can be used on this machine; `reason` says why not."""
        return not reason()

    @property
    def searching(self) -> Literal["int8", "bf16"]:
        """How the largest are looked for now."""
        return "int8" if isinstance(self.search, ByteSearch) else "bf16"

    def reload(self) -> None:
        self.search.reload(self.weights.W_enc)

    def remembered(self) -> list[int]:
        return [self.encoded, int(self.searching == "int8")]

    def remember(self, numbers: list[int]) -> None:
        """Other kernels remember nothing; then recall is measured on the next batch."""
        self.encoded, in_bytes = numbers or (0, 1)
        if not in_bytes and self.searching == "int8":
            self.search = self._product()

    def encode(self, x: Float[Tensor, "rows d"]) -> Active:
        x = _plain(x, torch.float32)
        if self.searching == "int8" and self.encoded % RECHECKED == 0:
            self._judge(x)
        self.encoded += 1
        weights, bias, _ = self.weights
        candidates = self.search.candidates(x, weights, bias, min(self.k + SPARE, len(weights)))
        return _rescored(x, weights, bias, candidates, self.k)

    def _product(self) -> CandidateSearch:
        return ProductSearch(self.weights.W_enc)

    def _judge(self, x: Float[Tensor, "rows d"]) -> None:
        """Give bytes up where they miss what they are for."""
        rows = x[: -(-JUDGED // self.k)]
        if _recall(self.search, rows, self.weights.W_enc, self.weights.b_enc, self.k) < LEAST_RECALL:
            self.search = self._product()

    def compare(self, target: Float[Tensor, "rows d"], active: Active) -> Compared:
        target, values = _plain(target, torch.float32), _plain(active.values, torch.float32)
        indices, decoder = _plain(active.indices, torch.int64), self.weights.W_dec
        error, products = torch.empty_like(target), torch.empty_like(values)
        squares = torch.empty(len(target), dtype=torch.float64)
        inputs, outputs = (target, decoder, values, indices), (error, products, squares)
        comparison = _Comparison(*map(_at, inputs), target.shape[1], values.shape[1], *map(_at, outputs))
        _call("compare", comparison, len(target))
        return Compared(error, squares.sum().float(), products)

    def update(
        self,
        x: Float[Tensor, "rows d"],
        error: Float[Tensor, "rows d"],
        active: Active,
        gradients: Float[Tensor, "rows k"],
        extra: Extra | None,
        rate: Rate,
    ) -> Bool[Tensor, "n"]:
        x, error, values, gradients = (_plain(tensor, torch.float32) for tensor in (x, error, active.values, gradients))
        indices, fired = _plain(active.indices, torch.int64), torch.empty(len(self.weights.b_enc), dtype=torch.bool)
        added = self._added(extra)
        copies = (self.search.rounded, self.search.packed, self.search.scales)
        update = _Update(
            len(x), *self.weights.W_enc.shape, values.shape[1],
            *map(_at, (x, error, values, gradients, indices)),
            self._moved("W_enc"), self._moved("b_enc"), self._moved("W_dec"),
            _constants(rate), *map(_at, added), *map(_at, (*copies, fired)),
        )  # fmt: skip
        _call("update", update)
        return fired

    def _moved(self, name: str) -> _Moved:
        return _Moved(_at(getattr(self.weights, name)), *map(_at, self.moments[name]))

    def _added(self, extra: Extra | None) -> tuple[Tensor | None, ...]:
        """Where each latent's extra gradient is, and the extra gradients. A latent is named at most once."""
        if extra is None or not len(extra.which):
            return None, None, None, None
        slots = torch.full((len(self.weights.b_enc),), -1, dtype=torch.int32)
        slots[extra.which] = torch.arange(len(extra.which), dtype=torch.int32)
        return slots, *(_plain(tensor, torch.float32) for tensor in (extra.W_enc, extra.b_enc, extra.W_dec))


def _constants(rate: Rate) -> _Adam:
    """Adam's constants with the corrections of its bias folded in (Kingma and Ba 2014, end of section 2)."""
    beta1, beta2 = rate.betas
    first, second = 1 - beta1**rate.step, 1 - beta2**rate.step
    return _Adam(rate.lr / first, second**-0.5, rate.eps, beta1, beta2, 1 - beta1, 1 - beta2)


def _refuse(weights: Weights, k: int, search: str | None) -> None:
    if reason():
        raise Refusal(f"the C library of the sparse step cannot be used here: {reason()}")
    if search not in (None, "int8", "bf16"):
        raise Refusal(f"search is {search!r}; it is 'int8', 'bf16', or None for the better of them here")
    d = weights.W_enc.shape[1]
    if search == "int8" and not can_search_bytes(d):
        raise Refusal(
            f"bytes cannot be searched in {d} dimensions here (VNNI is needed, and d <= {WIDEST}); use 'bf16'"
        )
    n = len(weights.b_enc)
    if not 1 <= k <= n:
        raise Refusal(f"k is {k} with {n} latents; it must be from 1 to {n}")
    for name, weight in weights._asdict().items():
        if weight.dtype != torch.float32 or weight.device.type != "cpu" or not weight.is_contiguous():
            raise Refusal(
                f"{name} is {weight.dtype} on {weight.device}; the C library needs contiguous float32 on the CPU, "
                "PyTorch's kernels serve the rest"
            )
