"""Where parts begin: drawn, taken from inputs that occur, or from what each row asks of the weight.

A part that begins as something that occurs is one that something already needs; drawn ones leave features that no part
reads, from which no gradient leads back. What the parts do not sum to at first is the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.parameters.addresses import Address, weight_at, within
from microtome.parameters.decomposed import Decomposed, Factors, Given
from microtome.parameters.products import padded
from microtome.parameters.uses import Use


class Met(NamedTuple):
    """What a weight met on a batch: its inputs, and the slope of half the output's square in what the weight returned.

    A row's gradient in the weight is the outer product of the two.
    """

    x: Float[Tensor, "*seeds rows in"]
    slope: Float[Tensor, "*seeds rows out"]


class Begin(ABC):
    """The first factors of one weight."""

    @abstractmethod
    def factors(
        self, met: Met, weight: Float[Tensor, "*seeds out in"], parts: int, generator: torch.Generator
    ) -> Factors:
        """Parts of one weight to begin from, which need not yet sum to it."""
        ...


@dataclass(frozen=True)
class Drawn(Begin):
    """Random read vectors, and write vectors so that the parts sum to the weight."""

    def factors(
        self, met: Met, weight: Float[Tensor, "*seeds out in"], parts: int, generator: torch.Generator
    ) -> Factors:
        return summing(directions((*weight.shape[:-2], parts, weight.shape[-1]), generator), weight)


@dataclass(frozen=True)
class FromRows(Begin):
    """Read vectors along inputs that occur, with some noise so that equal ones may part: a share of their length."""

    noise: float = 0.05

    def factors(
        self, met: Met, weight: Float[Tensor, "*seeds out in"], parts: int, generator: torch.Generator
    ) -> Factors:
        x = met.x
        sizes = x.norm(dim=-1)
        order = (torch.rand(sizes.shape, generator=generator, device=x.device) + 0.01) * (sizes > 1e-6)
        chosen = order.topk(min(parts, x.shape[-2]), -1).indices
        taken = normalize(pick(x, chosen), dim=-1)
        repeated = torch.cat([taken] * -(-parts // taken.shape[-2]), -2)[..., :parts, :]
        noise = directions((*x.shape[:-2], parts, x.shape[-1]), generator)
        return summing(repeated + self.noise * noise, weight)


@dataclass(frozen=True)
class FromGradients(Begin):
    """Parts along the gradients that occur most often, each as large as it must be for what the earlier ones left.

    A row's gradient in a weight is a part by itself: it reads the row's input and writes where the output would grow.
    Those within `near` of one another (the product of both cosines) are one. Where features come singly often enough,
    this alone recovers them. Parts beyond those that occur are drawn, and small.
    """

    near: float = 0.9
    small: float = 0.01
    shift: float = 0.02  # noise on read vectors

    def factors(
        self, met: Met, weight: Float[Tensor, "*seeds out in"], parts: int, generator: torch.Generator
    ) -> Factors:
        x, slope = normalize(met.x, dim=-1), normalize(met.slope, dim=-1)
        chosen, found = commonest(likeness(x, slope) > self.near, parts)
        lead = weight.shape[:-2]
        spare = [directions((*lead, parts, w), generator) for w in (x.shape[-1], slope.shape[-1])]
        read = torch.where(found[..., None], pick(x, chosen), spare[0])
        write = torch.where(found[..., None], pick(slope, chosen), spare[1])
        size = pursued(read, write, weight) * found
        return Factors(read + self.shift * spare[0], write * size[..., None] + self.small * spare[1])


def pursued(
    read: Float[Tensor, "*seeds parts in"],
    write: Float[Tensor, "*seeds parts out"],
    weight: Float[Tensor, "*seeds out in"],
) -> Float[Tensor, "*seeds parts"]:
    """How much of each unit part there is in what those before it left of the weight: matching pursuit, in order."""
    left, sizes = weight.clone(), list[Tensor]()
    for c in range(read.shape[-2]):
        r, w = read[..., c, :], write[..., c, :]
        size = torch.einsum("...o,...oi,...i->...", w, left, r)
        left = left - size[..., None, None] * w[..., :, None] * r[..., None, :]
        sizes.append(size)
    return torch.stack(sizes, -1)


class Common(NamedTuple):
    """Rows chosen, and whether there was one to choose."""

    rows: Int[Tensor, "*seeds parts"]
    found: Tensor


def likeness(
    x: Float[Tensor, "*seeds rows in"], slope: Float[Tensor, "*seeds rows out"]
) -> Float[Tensor, "*seeds rows rows"]:
    """The cosine of two rows' gradients in a weight, both factors of length 1 or, of a silent row, 0."""
    return (x @ x.mT) * (slope @ slope.mT)


def commonest(alike: Bool[Tensor, "*seeds rows rows"], parts: int) -> Common:
    """The rows that have the most others like them; those like a chosen one are not chosen."""
    waiting = alike.diagonal(dim1=-2, dim2=-1).clone()  # silent rows are not even like themselves
    rows, found = list[Tensor](), list[Tensor]()
    voting = alike.float()  # a product counts many times as fast as a sum of booleans
    for _ in range(parts):
        votes = (voting @ waiting.float()[..., None])[..., 0] * waiting
        best = votes.argmax(-1)
        rows.append(best)
        found.append(votes.gather(-1, best[..., None])[..., 0] > 0)
        same = alike.gather(-2, best[..., None, None].expand(*best.shape, 1, alike.shape[-1]))[..., 0, :]
        waiting = waiting & ~same
    return Common(torch.stack(rows, -1), torch.stack(found, -1))


def pick(x: Float[Tensor, "*seeds rows d"], rows: Int[Tensor, "*seeds parts"]) -> Float[Tensor, "*seeds parts d"]:
    """Some rows of each seed."""
    return x.gather(-2, rows[..., None].expand(*rows.shape, x.shape[-1]))


def directions(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Unit vectors, drawn evenly over the sphere."""
    return normalize(torch.randn(shape, generator=generator, device=generator.device), dim=-1)


def summing(read: Float[Tensor, "*seeds parts in"], weight: Float[Tensor, "*seeds out in"]) -> Factors:
    """Write vectors by least squares, and then the smallest change of the read vectors that makes the sum exact.

    Exact where there are at least as many parts as the weight has rank; else what is left is the rest.
    """
    write = torch.linalg.pinv(read.mT) @ weight.mT
    missing = weight - write.mT @ read
    if read.shape[-2] >= min(weight.shape[-2:]) and missing.abs().max() > 1e-5 * weight.abs().max():
        read = read + torch.linalg.pinv(write.mT) @ missing
    return Factors(read, write)


def begun(
    module: nn.Module,
    addresses: Sequence[Address],
    sample: Given,
    parts: Mapping[Address, int],
    begin: Begin,
    generator: torch.Generator,
    lead: tuple[int, ...] = (),
) -> Decomposed:
    """A decomposition before it has learnt anything; `sample` is a batch of inputs."""
    for address in addresses:
        if parts[address] < 1:
            raise Refusal(f"{address} is given {parts[address]} parts; give at least 1")
    met = meetings(module, addresses, sample, lead)
    made: dict[Address, Factors] = {}
    for address in addresses:
        weight = weight_at(module, address)
        weight = weight if weight.ndim == 2 + len(lead) else weight.expand(*lead, *weight.shape)
        made[address] = begin.factors(met[address], weight, parts[address], generator)
    return Decomposed(module, addresses, made)


@torch.enable_grad()
def meetings(
    module: nn.Module, addresses: Sequence[Address], sample: Given, lead: tuple[int, ...]
) -> dict[Address, Met]:
    """What each weight met on a batch of inputs."""
    blank = {a: Factors(*nothing(weight_at(module, a), lead)) for a in addresses}
    uses: dict[str, tuple[Use, Tensor]] = {}
    looking = Decomposed(module, addresses, blank)

    def visit(use: Use) -> Tensor:
        made = use.plain(use.bias)
        if use.turned or use.name in uses:
            return made
        probe = torch.zeros_like(made, requires_grad=True)
        uses[use.name] = use, probe
        return made + probe

    output = looking.forward_through(sample, visit)
    looking.refuse_unseen(uses)
    slopes = torch.autograd.grad(output.pow(2).sum() / 2, [probe for _, probe in uses.values()])
    slope = dict(zip(uses, slopes, strict=True))
    return {a: met_at(uses[a.name][0], slope[a.name], a, module, lead) for a in addresses}


def met_at(use: Use, slope: Tensor, address: Address, module: nn.Module, lead: tuple[int, ...]) -> Met:
    """The inputs and the gradients of one weight, as rows."""
    slope = slope if use.moves is None else slope.movedim(1, -1)
    slope = slope[..., within(address.writes)].flatten(len(lead), -2)
    x = as_rows(padded(use, address), weight_at(module, address), lead)
    return Met(x.detach(), slope.detach())


def nothing(weight: Tensor, lead: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One part of zeros."""
    out, inside = weight.shape[-2:]
    return weight.new_zeros(*lead, 1, inside), weight.new_zeros(*lead, 1, out)


def as_rows(use: Use, weight: Tensor, lead: tuple[int, ...]) -> Float[Tensor, "*seeds rows in"]:
    """The inputs of a weight as rows of what it multiplies: one-hot for ids, patches for images."""
    if not use.x.is_floating_point():
        return torch.nn.functional.one_hot(use.x.flatten(), weight.shape[-1]).to(weight.dtype)
    if use.moves is None:
        return use.x.flatten(len(lead), -2)
    if use.x.ndim == 3:
        raise Refusal("a 1-dimensional convolution cannot be begun here; write it as a 2-dimensional one of height 1")
    moves = use.moves
    patches = torch.nn.functional.unfold(use.x, use.kernel, moves.dilation, moves.padding, moves.stride)
    return patches.movedim(1, -1).flatten(0, 1)
