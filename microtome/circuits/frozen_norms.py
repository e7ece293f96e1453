"""Norms whose scale is held: y = gain * (x - its mean, where the norm centres) / scale + bias, an affine map of x.

Which sites are joined by a norm is found by what happens between them: vectors are put in at one and read at the other.
A map that answers p and 2p alike is a norm; one that answers in proportion is left to automatic differentiation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.edit import Edit, fill
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.core.model import Model
from microtome.core.site import Selection, Site
from microtome.core.trace import Trace

PROBE = 100.0  # so large that no norm's epsilon matters beside its square
ALIKE = 1e-3  # of the largest value, beyond rounding in float32


class Gap(NamedTuple):
    """Two sites with a norm between them, or nothing that bends."""

    before: Site
    after: Site


@dataclass(eq=False)
class Passage:
    """What a frozen run met on its way: what arrived at the sites it changed, and what left them."""

    arrived: dict[str, Tensor] = field(default_factory=dict)
    left: dict[str, Tensor] = field(default_factory=dict)

    def at(self, arrived: Trace) -> "Left":
        return Left(self, arrived)


class Left:
    """What left each site in a run that is still under way."""

    def __init__(self, passage: Passage, arrived: Trace) -> None:
        self.passage, self.arrived = passage, arrived

    def __getitem__(self, site: Site) -> Tensor:
        left = self.passage.left.get(site.name)
        return self.arrived[site] if left is None else left


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm as it was in one run: what it does to any vector, and the scale that it had at each position."""

    gap: Gap
    gain: Float[Tensor, "d"]
    bias: Float[Tensor, "d"]
    centres: bool
    scale: Float[Tensor, "batch pos 1"]

    def __call__(self, x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        return self.gain * centred(x, self.centres) / self.scale + self.bias


@dataclass(frozen=True, eq=False)
class HeldNorm(Edit):
    """A norm with its scale held, in place of the norm."""

    norm: Norm
    passage: Passage
    replaces: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[Site, ...]:
        return (self.norm.gap.before,)

    def value(self, part: Tensor, selection: Selection, arrived: Trace) -> Tensor:
        y = self.norm(self.passage.at(arrived)[self.norm.gap.before])
        self.passage.left[self.site.name] = y
        return y

    def __str__(self) -> str:
        return f"hold the scale of the norm before {self.site}"


def centred(x: Tensor, centres: bool) -> Tensor:
    return x - x.mean(-1, keepdim=True) if centres else x


def gaps(sites: Mapping[str, Site]) -> list[Gap]:
    """Where a network with these sites may have norms, those of its embedding left out."""
    layers = sorted({s.layer for n, s in sites.items() if n.startswith("mlp_out.") and s.layer is not None})
    pairs: list[tuple[str, str]] = []
    for layer in layers:
        stream = "resid_mid" if f"resid_mid.{layer}" in sites else "resid_pre"
        named = [
            ("resid_pre", "attn_in"),
            (stream, "mlp_in"),
            ("attn_out_raw", "attn_out"),
            ("mlp_out_raw", "mlp_out"),
        ]
        pairs += [(f"{a}.{layer}", f"{b}.{layer}") for a, b in named]
    pairs += [(f"resid_post.{layers[-1]}", "final_norm")] if layers else []
    return [Gap(sites[a], sites[b]) for a, b in pairs if a in sites and b in sites]


def norms(model: Model, inputs: Inputs, clean: Trace, sites: Mapping[str, Site]) -> list[Norm]:
    """Every norm between named sites, at the scales that it has in this run.

    Raises Refusal where what stands between two sites is neither a norm nor affine.
    """
    found = probed(model, inputs, clean, gaps(sites))
    first = [Gap(sites["embed"], sites["resid_pre.0"])] if {"embed", "resid_pre.0"} <= set(sites) else []
    return [*probed(model, inputs, clean, first), *found]


@torch.no_grad()
def probed(model: Model, inputs: Inputs, clean: Trace, between: list[Gap]) -> list[Norm]:
    if not between:
        return []
    signs = {gap.before.name: probes(clean[gap.before]) for gap in between}
    entering = [fill(gap.before, signs[gap.before.name]) for gap in {g.before.name: g for g in between}.values()]
    answers = model.run(inputs.repeat(4), read=[gap.after for gap in between], edit=entering)
    made = [norm_of(gap, signs[gap.before.name], answers[gap.after], clean) for gap in between]
    return [norm for norm in made if norm is not None]


def probes(like: Float[Tensor, "1 pos d"]) -> Float[Tensor, "4 1 d"]:
    """p, -p, 2p, and p with the same added everywhere; p alternates in sign."""
    p = torch.full_like(like[0, 0], PROBE)
    p[1::2] *= -1
    return torch.stack([p, -p, 2 * p, p + PROBE / 2])[:, None]


def norm_of(
    gap: Gap, put_in: Float[Tensor, "4 1 d"], answers: Float[Tensor, "4 pos d_out"], clean: Trace
) -> Norm | None:
    """The norm that answers so, or None where the answers are in proportion to what was put in."""
    one, minus, twice, moved = answers[:, -1]
    bias = (one + minus) / 2
    size = float((one - bias).abs().max())

    def alike(a: Tensor, b: Tensor) -> bool:
        return float((a - b).abs().max()) <= ALIKE * size

    if alike(twice - bias, 2 * (one - bias)):
        return None
    if not alike(one, twice):
        raise Refusal(
            f"what stands between {gap.before} and {gap.after} is neither a norm nor affine, so it cannot be held; "
            "a graph needs a network whose branches read the stream through a norm"
        )
    centres = alike(one, moved)
    p = centred(put_in[0, 0], centres)
    gain = (one - bias) * p.pow(2).mean().sqrt() / p
    return Norm(gap, gain, bias, centres, scale_of(gap, gain, bias, centres, clean))


def scale_of(gap: Gap, gain: Tensor, bias: Tensor, centres: bool, clean: Trace) -> Float[Tensor, "batch pos 1"]:
    """By what each position was divided. Raises Refusal where no one number explains what the norm gave."""
    given, wanted = gain * centred(clean[gap.before], centres), clean[gap.after] - bias
    inverse = (given * wanted).sum(-1, keepdim=True) / given.pow(2).sum(-1, keepdim=True).clamp(min=1e-30)
    off = float((inverse * given - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
    if off > ALIKE:
        raise Refusal(
            f"{gap.after} is not {gap.before} divided by one number at each position (it is off by {off:.1e} of the "
            "largest); a graph needs a network whose branches read the stream through such a norm"
        )
    return 1 / inverse
