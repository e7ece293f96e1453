"""The toys by name, ready to be looked into: the network, rows to look at it with, and which weights are of interest.

Those that take long to train ship as small files in `trained/`; `scripts/train_toys.py` makes them anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.errors import Absent, Refusal
from microtome.store.checkpoint import load_state
from microtome.toys.gated_trigonometry import GatedTrigonometry
from microtome.toys.modular import ModularAddition
from microtome.toys.residual_mlp import ResidualMLP
from microtome.toys.sparse import Sparse
from microtome.toys.superposition import Superposition
from microtome.toys.toy import Toy

TRAINED = Path(__file__).parent / "trained"
MODULUS = 31
T = TypeVar("T", bound=Toy)


@runtime_checkable
class Rows(Protocol):
    """Where rows of inputs come from."""

    def draw(self, rows: int, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Case:
    """One network without a seed axis and what to give it.

    `inputs` are the names of the entries of a row. `alone` is the size at which one entry by itself is a fair input, or
    None where it is none. `output` says whether what comes out are numbers or logits.
    """

    module: nn.Module
    data: Rows
    sites: tuple[str, ...]
    inputs: tuple[str, ...]
    alone: float | None = None
    output: Literal["numbers", "logits"] = "numbers"
    many_seeds: bool = True  # whether its inputs may have one more leading axis


def toy(name: str) -> Case:
    """The toy of this name. Raises Refusal for another name, Absent where it ships trained and the file is not here."""
    if name not in CASES:
        near = get_close_matches(name, CASES, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise Refusal(f"no toy {name!r}; {meant}there are: {', '.join(CASES)}")
    return CASES[name]()


def trained(network: T, name: str) -> T:
    """The network with the weights that ship under this name."""
    path = TRAINED / f"{name}.safetensors"
    if not path.exists():
        raise Absent(f"{name} ships trained, and {path.name} is not here; make it: python scripts/train_toys.py {name}")
    network.load_state_dict(load_state(path), strict=False)
    return network


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(count: int) -> tuple[str, ...]:
    return tuple(f"feature {i}" for i in range(count))


# ---------------------------------------------------------------- one by one


def superposition(count: int, hidden: int, *, identity: bool = False) -> Case:
    """Features in fewer dimensions, encoder and decoder apart; with an identity between them that no feature owns."""
    made = trained(Superposition(count, hidden, generator=drawn()), f"superposition-{count}-{hidden}").untied()
    made = made.with_between(torch.eye(hidden)) if identity else made
    sites = ("encoder", "between", "decoder") if identity else ("encoder", "decoder")
    return Case(made, Sparse(count, 0.05), sites, features(count), alone=0.75)


def tied(count: int, hidden: int) -> Case:
    """The same with the decoder the encoder turned round, as it was trained: one weight, used twice."""
    made = trained(Superposition(count, hidden, generator=drawn()), f"superposition-{count}-{hidden}")
    return Case(made, Sparse(count, 0.05), ("encoder",), features(count), alone=0.75)


def residual_mlp() -> Case:
    """100 features through 50 neurons; inputs are from -1 to 1, on one time in a hundred."""
    made = trained(compressed(), "residual-mlp-1")
    return Case(made, Sparse(100, 0.01, low=-1.0), ("layers.0.w_in", "layers.0.w_out"), features(100), alone=0.75)


def compressed(layers: int = 1, seed: int = 0, *, count: int = 100, neurons: int = 50) -> ResidualMLP:
    """The network of 1000 dimensions before it is trained, in those of them that its features are embedded in."""
    return ResidualMLP(count, 1000, neurons, layers, generator=drawn(seed)).narrowed()


def gated_trigonometry() -> Case:
    made = GatedTrigonometry(generator=drawn())
    inputs = ("number", *(f"switch {i}" for i in range(made.functions)))
    return Case(made, made, ("w_in.*", "w_out.*"), inputs)


class AtEquals(nn.Module):
    """The logits of modular addition where the answer is asked for, from rows of a and b."""

    def __init__(self, addition: ModularAddition):
        super().__init__()
        self.addition = addition

    def forward(self, x: Int[Tensor, "rows 2"]) -> Float[Tensor, "rows p"]:
        return self.addition.answers(x[..., 0], x[..., 1])


class Pairs:
    """Two numbers below a modulus."""

    def draw(self, rows: int, generator: torch.Generator) -> Int[Tensor, "rows 2"]:
        return torch.randint(MODULUS, (rows, 2), generator=generator, device=generator.device)


def modular_addition() -> Case:
    """Addition modulo 31, long after it was learnt by heart."""
    made = AtEquals(trained(grokking_network(), "modular-addition"))
    sites = ("addition.w_in", "addition.w_out")
    return Case(made, Pairs(), sites, ("a", "b"), output="logits", many_seeds=False)


def grokking_network() -> ModularAddition:
    return ModularAddition(MODULUS, d=64, heads=4, neurons=128, generator=drawn())


CASES: dict[str, Callable[[], Case]] = {
    "superposition-5-2": lambda: superposition(5, 2),
    "superposition-5-2-identity": lambda: superposition(5, 2, identity=True),
    "superposition-5-2-tied": lambda: tied(5, 2),
    "superposition-40-10": lambda: superposition(40, 10),
    "superposition-40-10-tied": lambda: tied(40, 10),
    "residual-mlp-1": residual_mlp,
    "gated-trigonometry": gated_trigonometry,
    "modular-addition": modular_addition,
}
