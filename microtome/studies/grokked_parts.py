"""The weights of a grokked network taken apart: do the parts span the planes in which it adds angles?

Each key frequency k is a plane: of answers, spanned by cos w_k c and sin w_k c; and of the stream that the neurons
read, spanned by what stands there of cos w_k a + cos w_k b and of the sines. All key frequencies act on every input, so
nothing that is learnt from which parts matter on which inputs need tell one plane's parts from another's. Networks as
in Nanda et al. 2023 (arXiv 2301.05217), parts as in Bushnaq et al. 2025 (arXiv 2506.20790).

Parts that begin along inputs read from the planes from the first; so they are also begun as drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.subspace import principal_angles
from microtome.dynamics.fourier import basis, rows_of
from microtome.dynamics.frequencies import neuron_frequencies
from microtome.notebook.page import Heading, Sentence, Table
from microtome.parameters.begin import Begin, Drawn, FromRows
from microtome.parameters.decompose import Decomposition, decompose
from microtome.parameters.matching import OFF
from microtome.parameters.objectives import squared
from microtome.parameters.source import Given
from microtome.parameters.spd import SPD
from microtome.store.records import Claim
from microtome.studies.study import at_least
from microtome.toys.modular import ModularAddition
from microtome.toys.named import AtEquals

OWN = "asked of this study; unpublished"
W_IN, W_OUT = "addition.w_in", "addition.w_out"
METHOD = SPD(parts=40, minimal=1e-2, steps=2000)
BEGINNINGS: dict[str, Begin] = {"along inputs": FromRows(), "as drawn": Drawn()}
SAME = 1e-6  # of the largest: smaller directions are rounding errors
Planes = dict[int, Float[Tensor, "2 d"]]  # by frequency


@dataclass(frozen=True)
class Parted:
    """The parts of one weight that matter on some pair, beside the planes of the key frequencies.

    `cosine`: by frequency, of the largest principal angle between its plane and the span of the parts. `chance`: the
    root of the mean squared cosine with so many random directions. `matter`: parts that matter on a pair, on average.
    `pure`: the share of them more than 85% of whose activity is at one frequency. `held`: the share of the weight's
    square that is in the parts. `begun` is one of the beginnings.
    """

    name: str
    begun: str
    alive: int
    matter: float
    cosine: dict[int, float]
    chance: float
    pure: float
    held: float

    @property
    def worst(self) -> float:
        return min(self.cosine.values(), default=float("nan"))


def taken_apart(
    model: ModularAddition, method: SPD, begin: Begin, seed: int, tell: Callable[[int], None]
) -> Decomposition:
    """The neurons' weights, learnt on all pairs; what is missed of logits and of weights is relative to their size."""
    pairs = model.pairs()[:, :2]
    with torch.no_grad():
        variance = float(model.answers(*pairs.T).var())
        size = float(torch.cat((model.w_in, model.w_out.T), 1).square().mean())

    def relative(now: Float[Tensor, "*rows p"], was: Float[Tensor, "*rows p"]) -> Float[Tensor, "*rows"]:
        return squared(now, was) / variance

    how = replace(method, begin=begin, distance=relative, faithful=method.faithful / size)
    return decompose(AtEquals(model), Given(pairs), [W_IN, W_OUT], method=how, seeds=1, seed=seed, tell=tell)


@torch.no_grad()
def parted(model: ModularAddition, found: Decomposition, frequencies: list[int], begun: str) -> list[Parted]:
    """What the parts of both weights span: what those of the first read, what those of the second say of answers."""
    looked = found.parts.look(model.pairs()[:, :2])
    importance, activity = looked.importance, looked.activation
    factors = {name: found.parts.of(i) for i, name in enumerate(found.parts.names)}
    seen = {
        W_IN: (factors[W_IN].read, stream_planes(model, frequencies)),
        W_OUT: (factors[W_OUT].write @ model.unembed.T, answer_planes(model.p, frequencies)),
    }
    made: list[Parted] = []
    for (name, (vectors, planes)), rest in zip(seen.items(), found.parts.rests(), strict=True):
        on = (importance[name] > OFF).any(0)
        weight = rest + factors[name].sum()
        active = activity[name][:, on].unflatten(0, (model.p, model.p))
        made.append(Parted(
            name, begun, alive=int(on.sum()), matter=float((importance[name] > OFF).float().sum(1).mean()),
            cosine={k: least_cosine(plane, vectors[on]) for k, plane in planes.items()},
            chance=min(1.0, int(on.sum()) / vectors.shape[1]) ** 0.5,
            pure=float(neuron_frequencies(active).belong().float().mean()) if on.any() else 0.0,
            held=1 - float(rest.square().sum() / weight.square().sum()),
        ))  # fmt: skip
    return made


def least_cosine(plane: Float[Tensor, "2 d"], vectors: Float[Tensor, "parts d"]) -> float:
    """Of the largest principal angle: 1 where the vectors span the plane, 0 where they miss a direction of it."""
    if not len(vectors):
        return 0.0
    _, sizes, ways = torch.linalg.svd(vectors.double(), full_matrices=False)
    held = ways[sizes > SAME * sizes[0]]
    return float(principal_angles(plane, held).max().cos()) if len(held) > 1 else 0.0


def answer_planes(p: int, frequencies: list[int]) -> Planes:
    """The cosine and the sine of each frequency over the answers."""
    return {k: basis(p)[rows_of([k], p)] for k in frequencies}


@torch.no_grad()
def stream_planes(model: ModularAddition, frequencies: list[int]) -> Planes:
    """Where in the stream that the neurons read the cosines of both numbers stand, and the sines: by regression."""
    a, b, _ = model.pairs().T
    mid = model.attended(a, b)
    modes = basis(model.p)
    return {k: (modes[rows][:, a] + modes[rows][:, b]) @ mid for k in frequencies for rows in (rows_of([k], model.p),)}


# ---------------------------------------------------------------- what they show


def claims(found: list[Parted]) -> tuple[Claim, ...]:
    """Each about the worst frequency."""
    said = {W_IN: "read by parts of the first weight", W_OUT: "written by parts of the second"}
    return tuple(
        at_least(
            f"planes of key frequencies {said[one.name]}, begun {one.begun}: least cosine", 0.95, one.worst, source=OWN
        )
        for one in found
    )


def pieces(found: list[Parted]) -> tuple[Heading | Sentence | Table, ...]:
    frequencies = list(found[0].cosine)
    rows = [
        [one.name, one.begun, str(one.alive), f"{one.matter:.1f}", *(f"{one.cosine[k]:.3f}" for k in frequencies),
         f"{one.chance:.2f}", f"{one.pure:.0%}", f"{one.held:.0%}"]
        for one in found
    ]  # fmt: skip
    head = (
        "weight",
        "begun",
        "parts",
        "on a pair",
        *(f"plane of {k}" for k in frequencies),
        "chance",
        "of one",
        "held",
    )
    return (
        Heading("Its weights taken apart"),
        Sentence(
            "Cosines are of the largest principal angle between a key frequency's plane and all that the parts span; "
            "chance is that many random directions. The column before the last is the share of parts more than 85% of "
            "whose activity is at one frequency: the parts span the planes together, and only so many keep to one. "
            "Held is the share of a weight's square that is in the parts; what is left is masked like a part of no "
            "importance. Parts that begin along inputs read from the planes from the first; drawn ones keep in what "
            "they read directions that no input shows."
        ),
        Table(head, rows, numeric=tuple(range(2, len(head)))),
    )
