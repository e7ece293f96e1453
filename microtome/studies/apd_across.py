"""Functions that several layers compute together, and whether each is one part: the paper's other two networks.

Braun et al. 2025 (arXiv 2501.14926): compressed computation through two residual MLPs, and gated functions set by hand.
Each function is looked at on rows where it is on by itself; no label is used in taking the network apart.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from microtome.core.schedule import Cosine
from microtome.interventions.masks import Masks
from microtome.parameters.apd import APD, attributions, of_parts
from microtome.parameters.decompose import decompose
from microtome.parameters.decomposed import Decomposed
from microtome.parameters.matching import one_hot
from microtome.parameters.objectives import squared
from microtome.parameters.source import Occupied, Source
from microtome.parameters.spanning import OfClasses
from microtome.studies.apd_scrubs import Scrubs, scrubs
from microtome.studies.study import Setting, Watch
from microtome.toys import GatedTrigonometry, Sparse
from microtome.toys.gated_trigonometry import SPAN
from microtome.toys.named import compressed, drawn
from microtome.toys.toy import learn

HALF = 0.5  # of the harm that a layer's silence does to a function, that its own part there must do
JUDGED = 1024


class Subject(NamedTuple):
    """A network, its inputs, the weights of each layer by name, and rows on which one function is on."""

    module: nn.Module
    data: Source
    layers: list[list[str]]
    alone: Float[Tensor, "functions rows d"]


@dataclass(frozen=True)
class Across:
    """Networks of one kind (what trained ones learn from), and how each is taken apart, from how many beginnings."""

    kind: Literal["two residual MLPs", "gated functions"]
    networks: int
    method: APD
    seeds: int = 1
    trained: int = 1000
    rows: int = 2048

    def subject(self, seed: int) -> Subject:
        return gated(seed) if self.kind == "gated functions" else residual(seed, self.trained, self.rows)


RESIDUAL = Across(
    "two residual MLPs", 1,
    APD(
        parts=100, rank=2, k=1.0, minimal=10.0, simple=1.0, power=0.9, steps=800, lr=2e-3, of_parts=False, probes=12,
        start=OfClasses("inputs"),
    ),
)  # fmt: skip
GATED = Across(
    "gated functions", 4,
    APD(parts=4, rank=2, k=1.0, simple=0.5, steps=1500, rows=256, start=OfClasses("gradients", near=0.97)),
    seeds=4,
)  # fmt: skip


def gated(seed: int, rows: int = 32) -> Subject:
    toy = GatedTrigonometry(generator=drawn(seed))
    alone = torch.zeros(toy.functions, rows, 1 + toy.functions)
    alone[..., 0] = torch.linspace(0, SPAN, rows)
    alone[..., 1:] = torch.eye(toy.functions)[:, None]
    return Subject(toy, toy, [[f"w_in.{i}", f"w_out.{i}"] for i in (0, 1)], alone)


def residual(seed: int, steps: int, rows: int) -> Subject:
    toy, data = compressed(2, seed), Sparse(100, 0.01, low=-1.0)
    learn(toy, data.batches(rows, steps, drawn(seed + 1)), lr=3e-3, schedule=Cosine(0, steps))
    layers = [[f"layers.{i}.w_in", f"layers.{i}.w_out"] for i in (0, 1)]
    return Subject(toy.requires_grad_(False), data, layers, one_hot(100)[:, None])


# ---------------------------------------------------------------- what is found


class Spanned(NamedTuple):
    """One network: the part that each function uses most, whether no other function does, and how much it holds.

    `held` is of the layer in which it holds least: what leaving the part out there does to the function, over what
    leaving out the whole layer does, in mean square.
    """

    own: list[int]
    alone: list[bool]
    held: list[float]
    scrubs: Scrubs
    seconds: float

    @property
    def everywhere(self) -> list[bool]:
        return [held >= HALF for held in self.held]

    @property
    def share(self) -> float:
        """Functions with a part of their own that is in every layer."""
        return sum(a and e for a, e in zip(self.alone, self.everywhere, strict=True)) / len(self.own)

    def plain(self) -> dict[str, Any]:
        return self._asdict() | {"scrubs": self.scrubs.plain()}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Spanned":
        scrubbed = Scrubs.read(plain["scrubs"])
        return cls(plain["own"], plain["alone"], plain["held"], scrubbed, plain["seconds"])


def spanned(of: Across, number: int, setting: Setting, watch: Watch) -> Spanned:
    """Take one network apart, and look at each of its functions."""
    begun, seed = time.process_time(), setting.seed + number
    subject, method = of.subject(seed), of.method
    sites = [name for layer in subject.layers for name in layer]
    with watch.stage(f"take apart {of.kind}, network {number}", method.steps, "steps") as advance:
        found = decompose(subject.module, subject.data, sites, method=method, seeds=of.seeds, seed=seed, tell=advance)
    own = owners(found.parts, subject.alone, method)
    generator = drawn(seed + 2)
    feed = Occupied(subject.data, generator)
    x = feed.batch(JUDGED + 1, (), generator).x[1:]
    judged = scrubs(found.parts, x, method, method.k_of(feed), generator)
    alone = torch.bincount(own, minlength=method.parts)[own] == 1
    held = least_held(found.parts, subject, own, method.parts)
    return Spanned(own.tolist(), alone.tolist(), held.tolist(), judged, time.process_time() - begun)


def owners(learned: Decomposed, alone: Float[Tensor, "functions rows d"], method: APD) -> Int[Tensor, "functions"]:
    """The part with the largest attribution where a function is on by itself."""
    each = attributions(learned, alone.flatten(0, 1), method.parts, method.of_parts)
    return each.unflatten(0, alone.shape[:2]).mean(1).argmax(-1)


@torch.no_grad()
def least_held(
    learned: Decomposed, subject: Subject, own: Int[Tensor, "functions"], parts: int
) -> Float[Tensor, "functions"]:
    """What leaving a function's part out of a layer does, over what leaving out the layer does: the least of layers."""
    functions, rows = subject.alone.shape[:2]
    x = subject.alone.flatten(0, 1)
    but_own = (torch.arange(parts) != own.repeat_interleave(rows)[:, None]).to(x)
    held: list[Tensor] = []
    for layer in subject.layers:
        one, whole = (
            without(learned, x, kept, layer).unflatten(0, (functions, rows)).mean(1)
            for kept in (but_own, torch.zeros_like(but_own))
        )
        held.append(one / whole.clamp(min=1e-12))
    return torch.stack(held).amin(0)


def without(
    learned: Decomposed, x: Float[Tensor, "rows d"], kept: Float[Tensor, "rows parts"], layer: list[str]
) -> Float[Tensor, "rows"]:
    """How far outputs move from all parts' where parts are kept so far in one layer."""
    whole, cut = (of_parts(learned, k).parts for k in (torch.ones_like(kept), kept))
    some = {name: cut[name] if name in layer else whole[name] for name in learned.names}
    return squared(learned.run(x, Masks(some)), learned.run(x, Masks(whole)))
