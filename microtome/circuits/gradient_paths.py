"""Where gradients are taken between a clean prompt and a corrupt one, and the two runs that a path leads between."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.wiring import Wiring
from microtome.core.edit import Edit, fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs, Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace


class Point(NamedTuple):
    """Somewhere to take gradients: on these inputs, with these edits, counted so much, for these writers (all)."""

    inputs: Inputs
    edits: tuple[Edit, ...]
    weight: float
    layer: int | None = None  # only the writers of this layer, -1 for the embedding
    kind: str = ""


class Path(ABC):
    """Where gradients are taken between the clean prompt and the corrupt one."""

    needs_activations: ClassVar[bool] = False  # what the writers gave in both runs, besides the embedding

    @abstractmethod
    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        """The points, whose weights sum to one for each writer."""


@dataclass(frozen=True)
class AtClean(Path):
    """At the clean prompt alone: plain edge attribution patching."""

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        yield Point(ends.clean.inputs, (), 1.0)


@dataclass(frozen=True)
class CleanCorrupt(Path):
    """At both prompts, half and half."""

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        yield Point(ends.clean.inputs, (), 0.5)
        yield Point(ends.corrupt.inputs, (), 0.5)


@dataclass(frozen=True)
class AlongInputs(Path):
    """At `steps` midpoints of the way from the clean prompt's embedding to the corrupt one's (EAP-IG, inputs)."""

    steps: int = 5

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        for part in midpoints(self.steps):
            yield Point(ends.clean.inputs, (fill(wired.layers[0].pre, ends.embedding(part)),), 1 / self.steps)


@dataclass(frozen=True)
class AlongActivations(Path):
    """Midpoints of the way of what each layer's heads, each MLP and the embedding alone give (EAP-IG, activations).

    Gradients for the writers of one part come from its own way, so there are as many times the passes as parts.
    """

    steps: int = 5
    needs_activations: ClassVar[bool] = True

    def points(self, wired: Wiring, ends: "Ends") -> Iterator[Point]:
        for part in midpoints(self.steps):
            weight, sites = 1 / self.steps, wired.layers
            yield Point(ends.clean.inputs, (fill(sites[0].pre, ends.embedding(part)),), weight, -1, "input")
            for i, layer in enumerate(sites):
                for kind, site in (("head", layer.z), ("mlp", layer.mlp_out)):
                    way = torch.lerp(ends.clean[site], ends.corrupt[site], part)
                    yield Point(ends.clean.inputs, (fill(site, way),), weight, i, kind)


def midpoints(steps: int) -> list[float]:
    if steps < 1:
        raise Refusal(f"a path of {steps} steps has no points; give at least 1")
    return [(i + 0.5) / steps for i in range(steps)]


@dataclass(frozen=True, eq=False)
class Ends:
    """The clean run and the corrupt one, at every place where something is written."""

    clean: Trace
    corrupt: Trace
    real: Bool[Tensor, "batch pos"]
    wired: Wiring

    def embedding(self, part: float) -> Float[Tensor, "batch pos d"]:
        """What enters the first block, so far on the way from clean to corrupt."""
        site = self.wired.layers[0].pre
        return torch.lerp(self.clean[site], self.corrupt[site], part)

    def of_embedding(self) -> "Ends":
        """The same with nothing but what enters the first block."""
        name = self.wired.layers[0].pre.name
        clean, corrupt = (Trace(run.inputs, {name: run[name]}) for run in (self.clean, self.corrupt))
        return Ends(clean, corrupt, self.real, self.wired)


@torch.no_grad()
def ends_of(wired: Wiring, clean: Inputs, corrupt: Inputs) -> Ends:
    """Both runs. Raises Refusal where the prompts are not aligned position by position."""
    refuse_unaligned(clean, corrupt)
    sites = [wired.layers[0].pre]
    for i, layer in enumerate(wired.layers):
        sites += [layer.z, layer.mlp_out, *([layer.raw, layer.attn_out] if wired.sandwiched(i) else [])]
    runs = [wired.model.run(inputs, read=sites) for inputs in (clean, corrupt)]
    stream = runs[0][sites[0]]
    real = clean.mask if isinstance(clean, Tokens) else torch.ones(stream.shape[:2], dtype=torch.bool)
    return Ends(runs[0], runs[1], real.to(stream.device), wired)


def refuse_unaligned(clean: Inputs, corrupt: Inputs) -> None:
    if len(clean) != len(corrupt):
        raise Refusal(f"there are {len(clean)} clean prompts and {len(corrupt)} corrupt ones; give them in pairs")
    if not isinstance(clean, Tokens) or not isinstance(corrupt, Tokens):
        return
    off = (clean.lengths != corrupt.lengths).nonzero().flatten().tolist()
    if off:
        one, other = int(clean.lengths[off[0]]), int(corrupt.lengths[off[0]])
        raise Refusal(
            f"pair {off[0]} has {one} clean tokens and {other} corrupt ones; edges are compared position by position, "
            "so give prompts of one length"
        )
    if clean.mask.shape != corrupt.mask.shape or not torch.equal(clean.mask, corrupt.mask):
        raise Refusal("the clean and the corrupt prompts are padded on different sides; pad both on the same")


def between(ends: Ends, site: Site) -> Float[Tensor, "batch pos *rest"]:
    return masked(ends.corrupt[site] - ends.clean[site], ends.real)


def masked(x: Float[Tensor, "batch pos *rest"], real: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch pos *rest"]:
    """Nothing at padding, whatever a network makes of it."""
    return torch.where(real.view(*real.shape, *[1] * (x.ndim - 2)), x, 0)
