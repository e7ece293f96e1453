"""A network's weights taken apart: `decompose(model, data, sites, method=SPD(...), seeds=8)`.

Several seeds are learnt in one program, and the one with the least loss of its own is kept: which seed found the truth
is never looked at.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import NoSuchComponent, Refusal
from microtome.core.site import Site
from microtome.parameters.addresses import CONVOLUTIONS, Address, find, put_back, seeds_of, turned_as
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.parameters.gates import Gate
from microtome.parameters.source import Source
from microtome.parameters.weight_parts import WeightParts, frozen

Tell = Callable[[int], None]


def silent(done: int) -> None:
    """Tells nobody."""
    pass


@dataclass(frozen=True)
class Learnt:
    """What a method found for every seed, and its own loss there."""

    parts: Decomposed
    loss: Float[Tensor, "seeds"]


class Method(ABC):
    """How weights are taken apart."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many steps it takes to learn."""
        ...

    @abstractmethod
    def learn(
        self,
        module: nn.Module,
        addresses: Sequence[Address],
        source: Source,
        lead: tuple[int, ...],
        generator: torch.Generator,
        tell: Tell = silent,
    ) -> Learnt:
        """A decomposition for each seed, learnt side by side. `tell` hears of every step."""


@dataclass(frozen=True)
class Decomposition:
    """The kept decomposition of one network, and how every seed fared."""

    parts: Decomposed  # without a seed axis
    losses: tuple[float, ...]
    kept: int

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The weights that were taken apart."""
        return self.parts.addresses

    def at(self, name: str | Address, reads: Site | None = None, writes: Site | None = None) -> WeightParts:
        """The parts of one weight as a dictionary. Its sites are what the layer is given and returns, unless named.

        Raises Refusal where what the parts read is no vector at a site: patches of a convolution, ids of an embedding.
        """
        names = self.parts.names
        if str(name) not in names:
            raise NoSuchComponent(f"no weight {str(name)!r} was decomposed; there are: {', '.join(names)}")
        place = names.index(str(name))
        address, factors = self.addresses[place], self.parts.of(place)
        if address.bias is not None or address.reads or address.writes:
            raise Refusal(f"{address} is not a whole weight by itself; use the decomposition's own masks")
        into, out = address.sites
        owner = self.parts.module.get_submodule(address.path)
        if isinstance(owner, (nn.Embedding, *CONVOLUTIONS)):
            raise Refusal(
                f"{address} belongs to {type(owner).__name__}, whose parts read {reads_of(owner)} and no vector at a "
                "site; mask them by `parts.run`, or edit the weight by `weights`"
            )
        gate = self.parts.gates[place] if self.parts.gates else None
        return WeightParts(
            reads or into, writes or out, factors.read, factors.write, self.parts.rests()[place],
            self._bias(address), frozen(deepcopy(gate)),
        )  # fmt: skip

    def _bias(self, address: Address) -> Tensor | None:
        owner = self.parts.module.get_submodule(address.path) if address.path else None
        return owner.bias if isinstance(owner, nn.Linear) else None

    def weights(self, masks: dict[str, Float[Tensor, "parts"]], *, rest: bool = True) -> dict[str, Tensor]:
        """Parameters with parts kept as far as masks say, for `torch.func.functional_call`; other weights are whole.

        Raises Refusal where a name is no decomposed weight.
        """
        unknown = set(masks) - set(self.parts.names)
        if unknown:
            raise Refusal(f"no weight {min(unknown)!r} was decomposed; there are: {', '.join(self.parts.names)}")
        return edited(self.parts, masks, rest)


def reads_of(owner: nn.Module) -> str:
    """What numbers a weight's inputs are in."""
    return "ids" if isinstance(owner, nn.Embedding) else "patches"


def edited(parts: Decomposed, masks: dict[str, Tensor], rest: bool) -> dict[str, Tensor]:
    """The weights that parts make under these masks, with the rest or without it."""
    made: dict[str, Tensor] = {}
    module, rests = parts.module, parts.rests()
    for place, address in enumerate(parts.addresses):
        factors = parts.of(place)
        mask = masks.get(str(address))
        write = factors.write if mask is None else factors.write * mask[..., None]
        matrix = write.mT @ factors.read + (rests[place] if rest else 0.0)
        if address.bias is not None:
            matrix, bias = matrix[..., :-1], matrix[..., -1]
            made[address.bias] = bias
        whole = made.get(address.name)
        whole = module.get_parameter(address.name).detach().clone() if whole is None else whole
        made[address.name] = filled(module, address, whole, matrix)
    return made


def filled(module: nn.Module, address: Address, whole: Tensor, matrix: Tensor) -> Tensor:
    """A parameter with this block of it put in."""
    if address.reads is None and address.writes is None:
        return put_back(module, address.name, matrix)
    address.block(turned_as(module, address.name, whole))[...] = matrix.detach()
    return whole


def decompose(
    model: nn.Module,
    data: Source,
    sites: str | Address | Sequence[str | Address] = "*",
    *,
    method: Method,
    seeds: int = 8,
    seed: int = 0,
    tell: Tell = silent,
) -> Decomposition:
    """Take the weights at `sites` (names, patterns or addresses) apart by a method, `seeds` times, and keep the best.

    The best is the one with the least loss by the method's own measure. With seeds=1 nothing has a seed axis, so any
    network will do; with more, it must let its inputs have one more leading axis, as layers of products do. For a
    network with a seed axis of its own see `decompose_each`.
    """
    if seeds < 1:
        raise Refusal(f"{seeds} seeds are asked for; ask for at least 1")
    if seeds_of(model) is not None:
        raise Refusal(f"this is {seeds_of(model)} networks; use decompose_each, or choose one with `one(0)`")
    lead = () if seeds == 1 else (seeds,)
    learnt = learn(model, data, sites, method, lead, seed, tell)
    return kept(learnt, model, range(seeds))


def decompose_each(
    model: nn.Module,
    data: Source,
    sites: str | Address | Sequence[str | Address] = "*",
    *,
    method: Method,
    seeds: int = 3,
    seed: int = 0,
    tell: Tell = silent,
) -> list[Decomposition]:
    """The same for a toy that is several networks (`toy.seeds`), all of them and all seeds in one program."""
    networks = seeds_of(model)
    if networks is None:
        raise Refusal("this is one network; use decompose")
    some, one = getattr(model, "some"), getattr(model, "one")  # noqa: B009  (see `microtome.toys.toy.Toy`)
    many = some(lambda weight: weight.repeat_interleave(seeds, 0), networks * seeds)
    learnt = learn(many, data, sites, method, (networks * seeds,), seed, tell)
    return [kept(learnt, one(i), range(i * seeds, (i + 1) * seeds)) for i in range(networks)]


def learn(
    model: nn.Module,
    data: Source,
    sites: str | Address | Sequence[str | Address],
    method: Method,
    lead: tuple[int, ...],
    seed: int,
    tell: Tell,
) -> Learnt:
    """The parts of every seed, with their losses."""
    addresses = find(model, sites)
    device = next(model.parameters()).device
    return method.learn(model, addresses, data, lead, torch.Generator(device).manual_seed(seed), tell)


def kept(learnt: Learnt, model: nn.Module, seeds: range) -> Decomposition:
    """Of these seeds, the one with the least loss."""
    losses = learnt.loss.reshape(-1)[list(seeds)]
    best = int(losses.argmin())
    return Decomposition(of_seed(learnt.parts, model, seeds[best]), tuple(losses.tolist()), best)


def of_seed(parts: Decomposed, model: nn.Module, seed: int) -> Decomposed:
    """The decomposition of one seed, without the axis, beside that seed's network."""
    if not parts.lead:
        return parts

    def one(weight: Tensor) -> Tensor:
        return weight[seed]

    factors = {a: Factors(one(parts.of(i).read), one(parts.of(i).write)) for i, a in enumerate(parts.addresses)}
    alone = Decomposed(model, parts.addresses, factors)
    alone.gates = nn.ModuleList([gate.of_seed(seed) for gate in parts.gates if isinstance(gate, Gate)])
    return alone
