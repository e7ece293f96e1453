"""The largest pre-activations, on a GPU, in Triton: they are searched while they are made, and never written.

    propose       tiles of x W_encᵀ + b in bfloat16 stay in registers; of each group of columns only the largest few are
                  written, each as one integer, a key: the score's bits, its place in the group in the lowest of them
    least_of_*    the c-th largest key, of each row by bisection, of a whole batch by histograms of its digits
    take          the columns whose keys reach it
    score         the pre-activations of those columns again, in full precision

A group that gave all it may, the last of them still among the best, may hide more: its row is `crowded`, and is
searched again without short cuts. So nothing is lost but what bfloat16 and the rounding of keys push below the `SPARE`
candidates that are taken beyond k.
"""
# ruff: noqa: ANN001, ANN202  (the arguments of a kernel are pointers and numbers of the GPU)
# The numbers of warps and of stages are arguments of the launch, which the program does not have.
# pyright: reportCallIssue=false

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.dictionaries.selection import SPARE, top_linear

LOWEST = tl.constexpr(-(2**31))  # no column: the key below all keys
CHUNK = 4096  # keys that a program looks at, at once
DIGITS = ((21, 11), (10, 11), (0, 10))  # a key's bits, highest first: shift and number


class Tiles(NamedTuple):
    """How the product is cut up, in powers of two: tiles of rows x columns, made `depth` of d at a time.

    Of each `group` of a tile's columns the `kept` largest are written.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 64
    group: int = 64
    kept: int = 4

    def fitting(self, n: int, c: int) -> "Tiles":
        """The same with groups small enough that they give four times the c that are looked for, or everything."""
        group = min(self.group, self.columns)
        while group > self.kept and n // group * self.kept < 4 * c:
            group //= 2
        return self._replace(group=group, kept=min(self.kept, group))


class Proposed(NamedTuple):
    """The keys of each row, round by round: first each group's largest, then each group's second, and so on."""

    keys: Int[Tensor, "rows slots"]
    tiling: Tiles
    tiles: int
    n: int

    @property
    def groups(self) -> int:
        """How many groups of components each row's proposals are from."""
        return self.keys.shape[1] // self.tiling.kept


class Taken(NamedTuple):
    """The columns taken, row after row, and the rows that may hide more of them."""

    columns: Int[Tensor, "taken"]
    crowded: Bool[Tensor, "rows"]


class Batch(NamedTuple):
    """What is kept of a batch: relu'd values, zero where a row has fewer than the most, and the least that was kept."""

    values: Float[Tensor, "rows most"]
    indices: Int[Tensor, "rows most"]
    least: Float[Tensor, ""]


def largest(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    searched: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    k: int,
    tiling: Tiles,
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"]]:
    """The k largest of `x weights.T + bias` in each row, and which; `searched` is the weights rounded to bfloat16."""
    c = min(k + SPARE, len(weights))
    proposed = propose(x, searched, bias, tiling.fitting(len(weights), c))
    starts = torch.arange(0, len(x) * c + 1, c, device=x.device)
    taken = take(proposed, least_of_rows(proposed.keys, c), starts, len(x) * c)
    candidates = taken.columns.view(len(x), c)
    best = score(x, weights, bias, candidates).topk(k, 1, sorted=False)
    values, indices = best.values, candidates.gather(1, best.indices)
    crowded = taken.crowded.nonzero()[:, 0]
    if len(crowded):
        values[crowded], indices[crowded] = top_linear(x[crowded], weights, bias, k, fast=False)
    return values, indices


def largest_of_batch(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    searched: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    k: int,
    tiling: Tiles,
) -> Batch:
    """The rows x k largest positive pre-activations of all rows together (BatchTopK; Bussmann et al. 2024)."""
    c = min(k + SPARE, len(weights))
    proposed = propose(x, searched, bias, tiling.fitting(len(weights), 2 * c))
    floor = least_of_all(proposed.keys.view(-1), len(x) * c)
    starts = torch.nn.functional.pad((proposed.keys >= floor).sum(1).cumsum(0), (1, 0))
    taken = take(proposed, floor.expand(len(x)).contiguous(), starts, int(starts[-1]))
    candidates, scores = _side_by_side(x, weights, bias, taken, starts)
    crowded = taken.crowded.nonzero()[:, 0]
    if len(crowded):
        whole = x[crowded] @ weights.T + bias
        most = max(candidates.shape[1], int((whole >= _score_of(floor)).sum(1).amax()))
        candidates, scores = _wider(candidates, most, 0), _wider(scores, most, -torch.inf)
        scores[crowded], candidates[crowded] = whole.topk(most, 1)
    least = _score_of(least_of_all(_keys_of(scores).view(-1), len(x) * k)).clamp(min=0)
    return Batch(torch.where(scores >= least, scores, 0).clamp(min=0), candidates, least)


def _side_by_side(
    x: Tensor, weights: Tensor, bias: Tensor, taken: Taken, starts: Tensor
) -> tuple[Int[Tensor, "rows most"], Float[Tensor, "rows most"]]:
    """Candidates of rows of different lengths as one rectangle with their scores; minus infinity past a row's end."""
    counts = starts.diff()
    places = torch.arange(int(counts.amax()), device=x.device)
    inside = places < counts[:, None]
    at = (starts[:-1, None] + places).clamp(max=len(taken.columns) - 1)
    candidates = torch.where(inside, taken.columns[at], 0)
    return candidates, score(x, weights, bias, candidates).masked_fill(~inside, -torch.inf)


def _wider(table: Tensor, width: int, filling: float | int) -> Tensor:
    return torch.nn.functional.pad(table, (0, width - table.shape[1]), value=filling)


def _keys_of(scores: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Bits of float32 as integers that order as the floats do."""
    bits = scores.view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _score_of(key: Int[Tensor, ""]) -> Float[Tensor, ""]:
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).view(torch.float32)


def propose(
    x: Float[Tensor, "rows d"], searched: Float[Tensor, "n d"], bias: Float[Tensor, "n"], tiling: Tiles
) -> Proposed:
    """The keys of the largest in each group of columns, from a product in the precision of `searched`."""
    (rows, d), n = x.shape, len(searched)
    tiles, blocks = triton.cdiv(n, tiling.columns), triton.cdiv(rows, tiling.rows)
    slots = tiles * (tiling.columns // tiling.group) * tiling.kept
    keys = torch.empty(rows, slots, dtype=torch.int32, device=x.device)
    _propose[(tiles * blocks,)](
        x.to(torch.bfloat16).to(searched.dtype), searched, bias, keys, rows, n, d, tiles,
        tiling.rows, tiling.columns, tiling.depth, tiling.group, tiling.kept, num_warps=8, num_stages=3,
    )  # fmt: skip
    return Proposed(keys, tiling, tiles, n)


@triton.jit
@no_type_check
def _propose(
    x, w, b, keys, rows, n, d, tiles,
    block_rows: tl.constexpr, block_n: tl.constexpr, block_d: tl.constexpr, group: tl.constexpr, kept: tl.constexpr,
):  # fmt: skip
    """Owns a block of rows and one tile of columns; reads both; writes the keys of the tile's groups.

    A tile's columns lie `tiles` apart: latents that are much alike, or much used, often lie side by side.
    Neighbouring programs share a tile, so that weights are read from memory once.
    """
    blocks = tl.cdiv(rows, block_rows)
    row = (tl.program_id(0) % blocks) * block_rows + tl.arange(0, block_rows)
    tile = tl.program_id(0) // blocks
    column = tile + tiles * tl.arange(0, block_n)
    at = tl.arange(0, block_d)
    left = x + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * d + at[None, :]
    right = w + tl.minimum(column, n - 1).to(tl.int64)[None, :] * d + at[:, None]
    total = tl.zeros((block_rows, block_n), tl.float32)
    for start in range(0, d, block_d):
        inside = start + at < d
        one = tl.load(left + start, mask=inside[None, :], other=0.0)
        other = tl.load(right + start, mask=inside[:, None], other=0.0)
        total = tl.dot(one, other, total, input_precision="ieee")
    total += tl.load(b + tl.minimum(column, n - 1))[None, :]
    found = tl.where(column[None, :] < n, _key(total, tl.arange(0, block_n) % group, group), LOWEST)
    _write_largest(keys, found, row, rows, tile, tiles, block_rows, block_n, group, kept)


@triton.jit
@no_type_check
def _key(score, place, group: tl.constexpr):
    """An integer that orders as the score does, but for its lowest bits, which say where in its group it stands."""
    bits = score.to(tl.int32, bitcast=True)
    return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) & -group) | place[None, :]


@triton.jit
@no_type_check
def _write_largest(
    keys, found, row, rows, tile, tiles,
    block_rows: tl.constexpr, block_n: tl.constexpr, group: tl.constexpr, kept: tl.constexpr,
):  # fmt: skip
    """Round by round, the largest key of each group, which then stands back for the next."""
    per_tile: tl.constexpr = block_n // group
    found = tl.reshape(found, (block_rows, per_tile, group))
    slot = tile * per_tile + tl.arange(0, per_tile)
    start = row.to(tl.int64) * (kept * tiles * per_tile)
    for turn in tl.static_range(kept):
        best = tl.max(found, axis=2)
        place = start[:, None] + (turn * tiles * per_tile + slot)[None, :]
        tl.store(keys + place, best, mask=(row < rows)[:, None])
        found = tl.where(found == best[:, :, None], LOWEST, found)


def least_of_rows(keys: Int[Tensor, "rows slots"], c: int) -> Int[Tensor, "rows"]:
    """The c-th largest key of each row."""
    rows, width = keys.shape
    least = torch.empty(rows, dtype=torch.int32, device=keys.device)
    _least_of_rows[(rows,)](keys, least, width, c, _chunk(width), num_warps=4)
    return least


def _chunk(width: int, most: int = CHUNK) -> int:
    return min(most, triton.next_power_of_2(width))


@triton.jit
@no_type_check
def _least_of_rows(keys, least, width, c, block: tl.constexpr):
    """Owns a row; finds the greatest number that at least c of its keys reach, bit by bit from the highest."""
    row = tl.program_id(0)
    start = keys + row.to(tl.int64) * width
    found = tl.where(_above(start, width, -1, block) >= c, 0, LOWEST)
    for turn in range(31):
        tried = found + (1 << (30 - turn))
        found = tl.where(_above(start, width, tried - 1, block) >= c, tried, found)
    tl.store(least + row, found)


@triton.jit
@no_type_check
def _above(start, width, bound, block: tl.constexpr):
    """How many of `width` keys are greater than `bound`."""
    total = tl.zeros((), tl.int32)
    for at in range(0, width, block):
        place = at + tl.arange(0, block)
        key = tl.load(start + place, mask=place < width, other=LOWEST)
        total += tl.sum((key > bound).to(tl.int32))
    return total


def least_of_all(keys: Int[Tensor, "total"], c: int) -> Int[Tensor, ""]:
    """The c-th largest of all keys. Each pass counts the values of some bits among keys that share the higher ones."""
    prefix = torch.zeros((), dtype=torch.int64, device=keys.device)
    wanted = torch.full_like(prefix, c)
    for shift, bits in DIGITS:
        counts = torch.zeros(2**bits, dtype=torch.int32, device=keys.device)
        programs = min(triton.cdiv(len(keys), CHUNK), 1024)
        _count_digits[(programs,)](keys, prefix, counts, len(keys), shift, bits, CHUNK, num_warps=4)
        reaching = counts.flip(0).cumsum(0).flip(0)  # keys whose digit is at least this
        digit = (reaching >= wanted).sum() - 1
        wanted = wanted - (reaching[digit] - counts[digit])
        prefix = (prefix << bits) + digit
    return (prefix - 2**31).to(torch.int32)


@triton.jit
@no_type_check
def _count_digits(keys, prefix, counts, total, shift: tl.constexpr, bits: tl.constexpr, block: tl.constexpr):
    """Owns some chunks of keys; adds how often each digit occurs among the keys that begin with `prefix`."""
    begins = tl.load(prefix)
    found = tl.zeros((1 << bits,), tl.int32)
    for at in range(tl.program_id(0) * block, total, tl.num_programs(0) * block):
        place = at + tl.arange(0, block)
        key = tl.load(keys + place, mask=place < total, other=0).to(tl.int64) + 2147483648
        mine = (place < total) & ((key >> (shift + bits)) == begins)
        digit = ((key >> shift) & ((1 << bits) - 1)).to(tl.int32)
        found += tl.histogram(digit, 1 << bits, mask=mine)
    tl.atomic_add(counts + tl.arange(0, 1 << bits), found)


def take(proposed: Proposed, least: Int[Tensor, "rows"], starts: Int[Tensor, "rows+1"], total: int) -> Taken:
    """The columns of each row whose keys reach its least, as many as there is room for between its starts.

    Where not all fit, those that only equal the least are left out.
    """
    rows, width = proposed.keys.shape
    tiling = proposed.tiling
    columns = torch.empty(total, dtype=torch.int64, device=starts.device)
    crowded = torch.empty(rows, dtype=torch.bool, device=starts.device)
    _take[(rows,)](
        proposed.keys, least, starts, columns, crowded, width, proposed.groups, proposed.tiles, proposed.n,
        tiling.columns // tiling.group, tiling.group, tiling.kept, _chunk(width, 1024), num_warps=4,
    )  # fmt: skip
    return Taken(columns, crowded)


@triton.jit
@no_type_check
def _take(
    keys, least, starts, columns, crowded, width, groups, tiles, n,
    per_tile: tl.constexpr, group: tl.constexpr, kept: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Owns a row; reads its keys; writes the columns of those above its least, then of those equal to it."""
    row = tl.program_id(0)
    first = keys + row.to(tl.int64) * width
    enough = tl.load(least + row)
    start = tl.load(starts + row)
    room = tl.load(starts + row + 1) - start
    above = tl.zeros((), tl.int32)
    equal = _above(first, width, enough, block)
    hidden = tl.zeros((), tl.int32)
    for at in range(0, width, block):
        place = at + tl.arange(0, block)
        key = tl.load(first + place, mask=place < width, other=LOWEST)
        more, same = key > enough, (key == enough) & (place < width)
        to = tl.where(more, above + tl.cumsum(more.to(tl.int32)), equal + tl.cumsum(same.to(tl.int32))) - 1
        column = _column(key, place % groups, tiles, n, per_tile, group)
        tl.store(columns + start + to, column, mask=(more | same) & (to < room))
        above += tl.sum(more.to(tl.int32))
        equal += tl.sum(same.to(tl.int32))
        hidden += tl.sum((more & (place >= (kept - 1) * groups)).to(tl.int32))
    tl.store(crowded + row, (hidden > 0) & (kept < group))


@triton.jit
@no_type_check
def _column(key, slot, tiles, n, per_tile: tl.constexpr, group: tl.constexpr):
    """The column that a key stands for. What is not a number may look like no column: it stays in bounds."""
    place = (slot % per_tile) * group + (key & (group - 1))
    return tl.minimum(slot // per_tile + tiles * place, n - 1).to(tl.int64)


def score(
    x: Float[Tensor, "rows d"],
    weights: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    columns: Int[Tensor, "rows c"],
) -> Float[Tensor, "rows c"]:
    """Pre-activations of the columns named, and no others, in float32."""
    (rows, d), c = x.shape, columns.shape[1]
    scores = torch.empty(rows, c, device=x.device)
    _score[(rows,)](x, weights, bias, columns, scores, d, c, *tile_of_entries(c), num_warps=8)
    return scores


def tile_of_entries(c: int) -> tuple[int, int]:
    """How many entries of a row, all of them, and how much of d a program holds at a time."""
    entries = triton.next_power_of_2(c)
    return entries, max(16, min(128, 8192 // entries))


@triton.jit
@no_type_check
def _score(x, w, b, columns, scores, d, c, block_c: tl.constexpr, block_d: tl.constexpr):
    """Owns a row; reads it and the weights of its columns, a stretch of d at a time; writes their scores."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, block_c)
    column = tl.load(columns + row * c + entry, mask=entry < c, other=0)
    total = tl.load(b + column)
    for start in range(0, d, block_d):
        at = start + tl.arange(0, block_d)
        here = tl.load(x + row * d + at, mask=at < d, other=0.0)
        there = tl.load(w + column[:, None] * d + at[None, :], mask=(entry < c)[:, None] & (at < d)[None, :], other=0.0)
        total += tl.sum(there * here[None, :], axis=1)
    tl.store(scores + row * c + entry, total, mask=entry < c)
