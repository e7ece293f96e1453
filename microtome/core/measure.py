"""What to watch: a number for each row of a batch. Measures add and scale."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.component import Component
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace

LOGITS = Site("logits", "batch pos vocab")


@dataclass(frozen=True)
class Measure:
    """A number to watch, one for each row: `activity(a) - 0.5 * activity(b)`."""

    of: Callable[[Trace], Float[Tensor, "batch"]]
    reads: tuple[Site, ...]
    label: str

    def __call__(self, trace: Trace) -> Float[Tensor, "batch"]:
        return self.of(trace)

    def __add__(self, other: "Measure") -> "Measure":
        reads = tuple(dict.fromkeys((*self.reads, *other.reads)))
        return Measure(lambda t: self(t) + other(t), reads, f"{self.label} + {other.label}")

    def __rmul__(self, by: float) -> "Measure":
        return Measure(lambda t: by * self(t), self.reads, f"{by:g} {self.label}")

    def __neg__(self) -> "Measure":
        return -1.0 * self

    def __sub__(self, other: "Measure") -> "Measure":
        return self + -other


def activity(component: Component) -> Measure:
    """The component's mean activity over each row's real places."""
    dictionary = component.dictionary

    def of(trace: Trace) -> Tensor:
        value = trace.codes(dictionary).of(component.index)
        if isinstance(trace.inputs, Tokens) and value.shape == trace.inputs.mask.shape:
            return (value * trace.inputs.mask).sum(1) / trace.inputs.mask.sum(1)
        return value.flatten(1).mean(1) if value.ndim > 1 else value

    return Measure(of, tuple(s.whole for s in dictionary.reads), f"activity of {component}")


def pick(logits: Float[Tensor, "batch vocab"], ids: int | Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """Each row's logit of its own token, or of one token for all."""
    wanted = torch.as_tensor(ids, device=logits.device).expand(len(logits))
    return logits.gather(-1, wanted[:, None])[:, 0]


def logit_diff(right: int | Int[Tensor, "batch"], wrong: int | Int[Tensor, "batch"], site: Site = LOGITS) -> Measure:
    """Logit of the right answer minus that of the wrong one, at each row's last token."""
    place = site.at(pos=-1) if "pos" in site.axes.split() else site
    return Measure(lambda t: pick(t[place], right) - pick(t[place], wrong), (place,), "logit difference")


def log_probability(ids: int | Int[Tensor, "batch"], site: Site = LOGITS) -> Measure:
    """Log probability of a token at each row's last position, in nats."""
    place = site.at(pos=-1)
    return Measure(lambda t: pick(t[place].log_softmax(-1), ids), (place,), "log probability")


def cross_entropy(site: Site = LOGITS) -> Measure:
    """Mean loss of predicting each real token from those before it, in nats per token."""

    def of(trace: Trace) -> Tensor:
        loss, counted = token_losses(trace, site)
        return (loss * counted).sum(1) / counted.sum(1)

    return Measure(of, (site,), "cross-entropy")


def token_losses(trace: Trace, site: Site = LOGITS) -> tuple[Float[Tensor, "batch next"], Tensor]:
    """The loss of every next token, in nats, and which of them are real."""
    inputs = cast(Tokens, trace.inputs)
    loss = F.cross_entropy(trace[site.whole][:, :-1].transpose(1, 2).float(), inputs.ids[:, 1:], reduction="none")
    return loss, inputs.mask[:, 1:] & inputs.mask[:, :-1]


def kl(reference: Trace, site: Site = LOGITS) -> Measure:
    """Mean over real positions of the divergence KL(reference || now), in nats."""

    def of(trace: Trace) -> Tensor:
        was, now = reference[site.whole].float().log_softmax(-1), trace[site.whole].float().log_softmax(-1)
        each = (was.exp() * (was - now)).sum(-1)
        if each.ndim == 1:
            return each
        mask = cast(Tokens, trace.inputs).mask
        return (each * mask).sum(1) / mask.sum(1)

    return Measure(of, (site,), "KL divergence")
