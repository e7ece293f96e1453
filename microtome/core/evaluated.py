"""Measuring while learning, without changing what is learned and whoever keeps the figures."""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.core.fit import Step, fit

Witness = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Evaluated:
    """A step, and what a witness found after it: nothing at most steps."""

    step: Step
    figures: dict[str, float]


def evaluated(learning: fit, every: int, witness: Witness) -> Iterator[Evaluated]:
    """The steps of a fit; after each `every`-th the witness looks at what is learned. Raises Refusal for every < 1."""
    if every < 1:
        raise Refusal(f"every is {every}; evaluate after each step (1) or fewer")
    return (
        Evaluated(step, examined(learning.learned, witness) if step.index % every == 0 else {}) for step in learning
    )


@torch.no_grad()
def examined(learned: nn.Module, witness: Witness) -> dict[str, float]:
    """What a witness finds, in evaluation mode. Random numbers it draws are not missing from the fit's own."""
    training = learned.training
    devices = {p.device for p in learned.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        learned.eval()
        try:
            return dict(witness(learned))
        finally:
            learned.train(training)
