"""Where a weight stands in a module, whatever holds it: a layer, a raw parameter, a slice of a head, a convolution.

Every weight is seen as a matrix (out, in), after leading axes that count seeds. Two names of one tensor are one weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.site import Site

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
READS_FIRST = ("Embedding", "Conv1D")  # transformers' Conv1D is a linear layer whose weight is (in, out)


@dataclass(frozen=True)
class Address:
    """A weight, or the block of it that `writes` and `reads` choose, and the bias taken in as one more column.

    A fused query-key-value weight is three addresses with slices of `writes`; one head is a slice of that size.
    """

    name: str
    writes: tuple[int, int] | None = None
    reads: tuple[int, int] | None = None
    bias: str | None = None

    def __str__(self) -> str:
        block = "".join(f"[{k}={a}:{b}]" for k, at in (("out", self.writes), ("in", self.reads)) if at for a, b in [at])
        return f"{self.name}{block}{' with bias' if self.bias else ''}"

    @property
    def path(self) -> str:
        """The module that holds the weight."""
        return self.name.rpartition(".")[0]

    @property
    def sites(self) -> tuple[Site, Site]:
        """What the module that holds the weight is given and what it returns."""
        return Site(f"{self.path}.in" if self.path else "in", "batch d"), Site(self.path or "out", "batch d")

    def block(self, x: Tensor) -> Tensor:
        """This block of a matrix (..., out, in)."""
        return x[(..., within(self.writes), within(self.reads))]


def within(at: tuple[int, int] | None) -> slice:
    """The numbers of an axis that an address chooses; all of them for None."""
    return slice(None) if at is None else slice(*at)


def find(module: nn.Module, patterns: str | Address | Sequence[str | Address] = "*") -> tuple[Address, ...]:
    """The weights whose names, or the names of whose modules, match; addresses are taken as they are.

    `*` is every weight that can be decomposed. Raises Refusal where a pattern finds none, where what it names is no
    matrix, where two addresses overlap, and where two parameters share their storage.
    """
    wanted = [patterns] if isinstance(patterns, str | Address) else list(patterns)
    found = [one for pattern in wanted for one in matching(module, pattern)]
    distinct = tuple(dict.fromkeys(found))
    for address in distinct:
        refuse_shape(module, address)
    refuse_overlap(distinct)
    refuse_shared(module, distinct)
    return distinct


def matching(module: nn.Module, pattern: str | Address) -> list[Address]:
    """The addresses that a pattern names, by parameter or by module. Raises Refusal where it names none."""
    named = dict(module.named_parameters(remove_duplicate=False))
    if isinstance(pattern, Address):
        if pattern.name not in named:
            raise Refusal(f"no parameter {pattern.name!r}; {nearest(pattern.name, named)}")
        return [pattern]
    if pattern in named:
        return [Address(first_name(module, pattern))]
    owners = {name: name.rpartition(".")[0] for name in named}
    hits = [n for n, owner in owners.items() if fnmatchcase(n, pattern) or fnmatchcase(owner, pattern)]
    if not hits:
        layers = {n for n, _ in module.named_modules()}
        if pattern in layers:
            raise Refusal(f"{pattern!r} has no weight of its own to decompose; {nearest(pattern, named)}")
        raise Refusal(f"no weight matches {pattern!r}; {nearest(pattern, named)}")
    whole = [n for n in hits if trouble(module, n) is None]
    if not whole:
        raise Refusal(f"{pattern!r} finds nothing that can be decomposed: {hits[0]} is {trouble(module, hits[0])}")
    return [Address(n) for n in dict.fromkeys(first_name(module, n) for n in whole)]


def nearest(name: str, known: dict[str, nn.Parameter]) -> str:
    """What may have been meant, for a refusal."""
    near = get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(known)}"


def first_name(module: nn.Module, name: str) -> str:
    """The first name of this tensor: tied weights have one address, and one decomposition."""
    held = module.get_parameter(name)
    return next(n for n, p in module.named_parameters() if p is held)


def seeds_of(module: nn.Module) -> int | None:
    """How many networks the module holds on a leading axis of its weights; None for one network without that axis."""
    return getattr(module, "seeds", None)


def trouble(module: nn.Module, name: str) -> str | None:
    """Why a parameter cannot be decomposed into rank-one parts, or None."""
    weight, owner = module.get_parameter(name), module.get_submodule(name.rpartition(".")[0])
    axes = weight.ndim - (seeds_of(module) is not None)
    if isinstance(owner, CONVOLUTIONS) and axes > 1:
        return None if owner.groups == 1 else f"the weight of a convolution in {owner.groups} groups; only 1 is known"
    if isinstance(owner, nn.RNNBase | nn.Bilinear | nn.MultiheadAttention):
        return f"in a {type(owner).__name__}, whose products are not seen; write it as linear layers"
    if axes != 2:
        return f"of shape {tuple(weight.shape)}, not a matrix; only what multiplies its input has rank-one parts"
    return None


def refuse_shape(module: nn.Module, address: Address) -> None:
    """Raises Refusal for a parameter that is no matrix, and for a range outside it."""
    why = trouble(module, address.name)
    if why is not None:
        raise Refusal(f"{address.name} cannot be decomposed: it is {why}")
    out, inside = oriented(module, address.name).shape[-2:]
    for at, size, axis in ((address.writes, out, "out"), (address.reads, inside, "in")):
        if at is not None and not 0 <= at[0] < at[1] <= size:
            raise Refusal(f"{address} chooses {at[0]}:{at[1]} of {size} along {axis}; choose a range within 0:{size}")
    if address.bias is not None and address.reads is not None:
        raise Refusal(f"{address} takes the bias in with some columns only; leave reads out, or the bias")


def refuse_overlap(addresses: Sequence[Address]) -> None:
    """Raises Refusal where two addresses share a number of one weight."""
    for i, one in enumerate(addresses):
        for other in addresses[:i]:
            if one.name == other.name and meets(one.writes, other.writes) and meets(one.reads, other.reads):
                raise Refusal(f"{other} and {one} overlap; let each number of a weight belong to one address")


def meets(one: tuple[int, int] | None, other: tuple[int, int] | None) -> bool:
    """Whether two ranges of one axis share a place; None is all of it."""
    return one is None or other is None or max(one[0], other[0]) < min(one[1], other[1])


def refuse_shared(module: nn.Module, addresses: Sequence[Address]) -> None:
    """Two parameters over the same memory would be decomposed twice and each be wrong about the other."""
    wanted = {a.name for a in addresses}
    seen: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        place = parameter.untyped_storage().data_ptr()
        if place in seen and wanted & {name, seen[place]}:
            raise Refusal(f"{seen[place]} and {name} share storage; make them one parameter, or clone one of them")
        seen[place] = name


def oriented(module: nn.Module, name: str) -> Float[Tensor, "*seeds out in"]:
    """A parameter as a matrix (out, in): kernels flattened, embeddings turned."""
    return turned_as(module, name, module.get_parameter(name))


def turned_as(module: nn.Module, name: str, weight: Tensor) -> Float[Tensor, "*seeds out in"]:
    """The same view of another tensor in that parameter's layout."""
    owner = module.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, CONVOLUTIONS):
        return weight.flatten(1)
    return weight.mT if type(owner).__name__ in READS_FIRST else weight


def put_back(module: nn.Module, name: str, matrix: Float[Tensor, "*seeds out in"]) -> Tensor:
    """What `oriented` undid: the matrix in the layout of the parameter."""
    weight, owner = module.get_parameter(name), module.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, CONVOLUTIONS):
        return matrix.reshape(matrix.shape[:-2] + weight.shape)
    return matrix.mT if type(owner).__name__ in READS_FIRST else matrix


def weight_at(module: nn.Module, address: Address) -> Float[Tensor, "*seeds out in"]:
    """The matrix at an address, its bias as the last column where it has one."""
    matrix = address.block(oriented(module, address.name).detach())
    if address.bias is None:
        return matrix
    column = module.get_parameter(address.bias).detach()[..., within(address.writes)]
    return torch.cat((matrix, column[..., None]), -1)
