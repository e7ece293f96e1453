"""What is measured at each checkpoint: losses on text, how long weights are, how degenerate the minimum is."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.measure import LOGITS, token_losses
from microtome.dynamics.chains import Langevin, of_module, tempering
from microtome.dynamics.in_context import in_context_score
from microtome.dynamics.llc import LearningCoefficient, learning_coefficient
from microtome.models.hooked import HookedModel

Measured = Literal["loss", "in_context", "weights", "coefficient"]
COEFFICIENT = "learning coefficient"
ERROR = "its standard error"
LENGTH = "length of each weight"
SQUARED = "squared weights"
UNITS = {
    "loss": "nats a token", "in-context score": "nats", LENGTH: "root of the sum of squares", SQUARED: "sum",
    COEFFICIENT: "half a weight where a minimum is regular", ERROR: "likewise",
}  # fmt: skip
ROWS = 16  # windows in one forward pass


@dataclass(frozen=True)
class Walk:
    """How chains wander: as in `microtome.dynamics.llc`, each step on `rows` windows drawn anew."""

    chains: int = 4
    steps: int = 200
    burn: int = 200
    rate: float = 1e-6
    localisation: float = 100.0
    rows: int = 8
    seed: int = 0


@dataclass(frozen=True)
class TextMeasures:
    """What a model of text is at one checkpoint, on the same windows at all of them.

    A learning coefficient whose chains are not healthy is nan, and `unwell` keeps what is wrong with them, by model.
    """

    windows: Int[Tensor, "windows context"]
    measures: tuple[Measured, ...]
    walk: Walk
    unwell: dict[str, str]

    def __call__(self, model: HookedModel) -> dict[str, float]:
        made: dict[str, float] = {}
        losses = next_losses(model, self.windows) if {"loss", "in_context"} & set(self.measures) else None
        if losses is not None and "loss" in self.measures:
            made["loss"] = float(losses.mean())
        if losses is not None and "in_context" in self.measures:
            made["in-context score"] = float(in_context_score(losses))
        if "weights" in self.measures:
            made |= lengths(dict(model.module.named_parameters()))
        if "coefficient" in self.measures:
            made |= self._coefficient(model)
        return made

    def _coefficient(self, model: HookedModel) -> dict[str, float]:
        found = coefficient(model.module, self.windows.to(model.device), self.walk)
        if not found.flags:
            return {COEFFICIENT: found.estimate, ERROR: found.error}
        self.unwell[model.name] = "; ".join(found.flags)
        return {COEFFICIENT: math.nan, ERROR: math.nan}


@torch.no_grad()
def next_losses(model: HookedModel, windows: Int[Tensor, "windows context"]) -> Float[Tensor, "windows next"]:
    """The loss of every next token, in nats."""
    rows = (Tokens.of(ids).to(model.device) for ids in windows.split(ROWS))
    return torch.cat([token_losses(model.run(ids, read=[LOGITS]))[0].cpu() for ids in rows])


def lengths(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The sum of all squares, and each tensor's length as a profile. What is no floating point is left out."""
    sizes = {n: float(w.detach().double().norm()) for n, w in weights.items() if w.is_floating_point()}
    profile = {f"{LENGTH}/{name.replace('/', '.')}": size for name, size in sizes.items()}
    return {SQUARED: sum(size**2 for size in sizes.values()), **profile}


def coefficient(module: nn.Module, windows: Int[Tensor, "windows context"], walk: Walk) -> LearningCoefficient:
    """The local learning coefficient for next tokens; as many samples as there are tokens to predict."""
    generator = torch.Generator(windows.device).manual_seed(walk.seed)
    how = Langevin(tempering(windows[:, 1:].numel()), rate=walk.rate, localisation=walk.localisation)
    loss = of_module(module, next_token_loss, lambda ids: ids)
    with sdpa_kernel(SDPBackend.MATH):  # the others do not know an axis of chains
        return learning_coefficient(
            loss, dict(module.named_parameters()), how, batches=drawn(windows, walk.rows, generator),
            chains=walk.chains, steps=walk.steps, burn=walk.burn, generator=generator,
        )  # fmt: skip


def next_token_loss(output: Any, ids: Int[Tensor, "rows context"]) -> Float[Tensor, ""]:
    return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def drawn(windows: Int[Tensor, "windows context"], rows: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield windows[torch.randint(len(windows), (rows,), generator=generator, device=windows.device)]


def refuse_nonsense(walk: Walk) -> None:
    """Raises Refusal for a walk with which there is nothing to measure."""
    for name, value in (("chains", walk.chains), ("steps", walk.steps), ("rate", walk.rate)):
        if value <= 0:
            raise Refusal(f"--{name} is {value:g}; give a number above 0")
    if walk.burn < 0:
        raise Refusal(f"--burn is {walk.burn}; give 0 or more")
    if walk.chains < 2:
        raise Refusal("--chains is 1, which has no spread to judge it by; give 2 or more")
