"""A network beside a decomposition of its weights: the same forward pass, with each part kept as far as a mask says.

Each weight W is the sum of rank-one parts and of a rest:  W = sum_c write_c read_c^T + rest.  A part's activation is
read_c . x, and what it does to the output is found by masking it: y = sum_c m_c (read_c . x) write_c + m_rest rest x.
Bushnaq et al. 2025 (arXiv 2506.20790). With a seed axis, many decompositions (of one network, or each of its own) are
learnt in one program.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.interventions.masks import Masks
from microtome.parameters.addresses import READS_FIRST, Address, oriented, seeds_of, weight_at
from microtome.parameters.gates import Gate, GateKind, Shape, importance_of
from microtome.parameters.products import applied, laid_out, padded
from microtome.parameters.uses import Use, Using

Given = Tensor | Inputs


class Look(NamedTuple):
    """One forward pass of the network as it is: its output, and by address activations and what gates say of them."""

    output: Float[Tensor, "..."]
    activation: dict[str, Float[Tensor, "..."]]
    gate: dict[str, Float[Tensor, "..."]]

    @property
    def importance(self) -> dict[str, Float[Tensor, "..."]]:
        """Between 0 and 1. It is not the activation: a part may be active where nothing depends on it."""
        return {name: importance_of(z) for name, z in self.gate.items()}


class Factors(nn.Module):
    """The parts of one weight: read (*seeds, part, in) and write (*seeds, part, out)."""

    def __init__(self, read: Float[Tensor, "*seeds parts in"], write: Float[Tensor, "*seeds parts out"]):
        super().__init__()
        self.read, self.write = nn.Parameter(read.detach().clone()), nn.Parameter(write.detach().clone())

    def sum(self) -> Float[Tensor, "*seeds out in"]:
        """What the parts add up to."""
        return self.write.mT @ self.read


class Decomposed(nn.Module):
    """The parts of a network's weights, and what masks make of the network. The network itself never changes."""

    def __init__(self, module: nn.Module, addresses: Sequence[Address], factors: Mapping[Address, Factors]):
        """Factors for every address, all with the same seeds. A network with a seed axis has as many seeds."""
        super().__init__()
        self._module = (module,)  # in a tuple: it is not learned
        self.addresses = tuple(addresses)
        self.names = [str(a) for a in addresses]
        self.factors = nn.ModuleList([factors[a] for a in addresses])
        self.gates = nn.ModuleList()
        self.lead = tuple(factors[addresses[0]].read.shape[:-2])
        given = seeds_of(module)
        if given is not None and self.lead != (given,):
            raise Refusal(f"the network has {given} seeds and its parts {self.lead or 'none'}; give as many")
        for address, weight in zip(addresses, self.weights(), strict=True):
            self.register_buffer(slot(address), weight, persistent=False)

    @property
    def module(self) -> nn.Module:
        """The network whose weights these are; its own stay as they were."""
        return self._module[0]

    def with_gates(self, kind: GateKind, generator: torch.Generator) -> "Decomposed":
        """Itself, each weight with fresh gates of this kind."""
        sizes = [self.of(i).read.shape[-2] for i in range(len(self.addresses))]
        self.gates = nn.ModuleList([kind.make(Shape(self.lead, size), generator) for size in sizes])
        return self

    def of(self, place: int) -> Factors:
        """The parts of one weight, by its place among the addresses."""
        return cast(Factors, self.factors[place])

    def weights(self) -> list[Float[Tensor, "*seeds out in"]]:
        """The network's own weights at the addresses."""
        return [weight_at(self.module, a) for a in self.addresses]

    def rests(self) -> list[Float[Tensor, "*seeds out in"]]:
        """What the parts leave over of each weight."""
        held = [cast(Tensor, getattr(self, slot(a))) for a in self.addresses]
        return [w - self.of(i).sum() for i, w in enumerate(held)]

    def unfaithful(self) -> Float[Tensor, "*seeds"]:
        """The mean square of what the parts leave over, over all numbers of all weights."""
        return torch.stack([r.pow(2).sum((-2, -1)) for r in self.rests()]).sum(0) / self.numbers

    @property
    def numbers(self) -> int:
        """How many numbers the decomposed weights of one network hold."""
        return sum(w.shape[-2] * w.shape[-1] for w in self.weights())

    # ------------------------------------------------------------ forward passes

    def look(self, x: Given) -> Look:
        """The network as it is; gradients flow into read vectors and gates, not into the network."""
        seen: dict[str, Use] = {}

        def visit(use: Use) -> Tensor:
            if not use.turned:
                seen.setdefault(use.name, use)
            return use.plain(use.bias)

        with torch.no_grad():
            output = self.forward_through(x, visit)
        self.refuse_unseen(seen)
        activation = {
            str(a): applied(padded(seen[a.name], a), self.of(i).read, self.lead) for i, a in enumerate(self.addresses)
        }
        gate = {n: cast(Gate, g)(activation[n]) for n, g in zip(self.names, self.gates, strict=False)}
        return Look(output, activation, gate)

    def run(self, x: Given, masks: Masks) -> Float[Tensor, "..."]:
        """The output when every part is kept as far as its mask says. Masks of ones give the network's own."""
        rests = None if masks.rest is None else self.rests()
        return self.forward_through(x, lambda use: self._masked(use, masks, rests))

    def forward_through(self, x: Given, visit: Callable[[Use], Tensor]) -> Tensor:
        """The network's output, each product with a decomposed weight made by `visit`."""
        names = {a.name: type(self._owner(a)).__name__ in READS_FIRST for a in self.addresses}
        with Using(self.module, names, visit):
            made = x.call(self.module) if isinstance(x, Inputs) else self.module(self._for_seeds(x))
        return made if isinstance(made, Tensor) else getattr(made, "logits")  # noqa: B009

    def _owner(self, address: Address) -> nn.Module:
        return self.module.get_submodule(address.path)

    def _for_seeds(self, x: Tensor) -> Tensor:
        """Rows that all seeds share are given to each."""
        return x.expand(*self.lead, *x.shape) if self.lead and x.ndim == 2 else x

    def _masked(self, use: Use, masks: Masks, rests: list[Tensor] | None) -> Tensor:
        """One product as a sum over the addresses in its weight, and what lies between these."""
        here = [i for i, a in enumerate(self.addresses) if a.name == use.name]
        made = [self._part(use, i, masks, rests) for i in here]
        between = self._uncovered(use.name, here)
        if between is not None:
            made.append(applied(use, between.mT if use.turned else between, self.lead))
        y = torch.stack(made).sum(0) if len(made) > 1 else made[0]
        taken_in = any(self.addresses[i].bias is not None for i in here)
        return laid_out(y if use.bias is None or taken_in else y + use.bias, use)

    def _part(self, use: Use, place: int, masks: Masks, rests: list[Tensor] | None) -> Tensor:
        address, factors = self.addresses[place], self.of(place)
        mask, of_rest = masks.at(str(address))
        read, write = (factors.write, factors.read) if use.turned else (factors.read, factors.write)
        given = padded(use, address)
        h = applied(given, read, self.lead)
        y = times(h * mask, write, self.lead)
        if rests is not None and of_rest is not None:
            y = y + of_rest * applied(given, rests[place].mT if use.turned else rests[place], self.lead)
        return spread_out(y, address, self._size(address, use.turned), use.turned)

    def _size(self, address: Address, turned: bool) -> int:
        return oriented(self.module, address.name).shape[-1 if turned else -2]

    def _uncovered(self, name: str, here: list[int]) -> Tensor | None:
        """The weight with zeros at its addresses; None where they are all of it."""
        blocks = [self.addresses[i] for i in here]
        if all(a.writes is None and a.reads is None for a in blocks):
            return None
        left = oriented(self.module, name).detach().clone()
        for address in blocks:
            address.block(left).zero_()
        return left

    def refuse_unseen(self, seen: Collection[str]) -> None:
        """Raises Refusal where a weight of an address was not used in a forward pass."""
        missing = [str(a) for a in self.addresses if a.name not in seen]
        if missing:
            raise Refusal(
                f"nothing was multiplied by {missing[0]} in this forward pass; leave it out of the sites, or give "
                "inputs on which the network uses it"
            )


def slot(address: Address) -> str:
    """The name of the buffer that holds a weight."""
    return "weight_" + str(address).replace(".", "_")


def times(h: Tensor, matrix: Float[Tensor, "*seeds parts out"], lead: tuple[int, ...]) -> Tensor:
    """h (*seeds, ..., part) by a matrix of each seed."""
    if h.ndim <= len(lead) + 2:
        return h @ matrix
    flat = h.flatten(len(lead), -2)
    return (flat @ matrix).unflatten(-2, h.shape[len(lead) : -1])


def spread_out(y: Tensor, address: Address, size: int, turned: bool) -> Tensor:
    """What one block writes, at its place in the whole width."""
    if turned and address.bias is not None:
        y = y[..., :-1]
    at = address.reads if turned else address.writes
    return y if at is None else nn.functional.pad(y, (at[0], size - at[1]))
