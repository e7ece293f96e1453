"""The direction along which two sets of activations differ: how it is found from few examples.

Each finder gives a unit vector that points from the negative examples to the positive ones. What two sets of examples
differ by is known with the error of two means, so in noise that is stronger along some axes than along others, the mean
difference points away from the truth along those; `whitened` takes that error back.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.core.errors import NotFinite, Refusal
from microtome.core.logistic import least_loss

DECAY = 1e-2  # of logistic regressions: |w|² / 2 beside the mean loss in nats, inputs in standard deviations
STEPS = 200


@dataclass(frozen=True, eq=False)
class Contrast:
    """Activations of what has something and of what has it not. Pairs, where both have as many rows, stand in order.

    Raises Refusal where there are fewer than two of either or widths differ, NotFinite where a number is not finite.
    """

    positive: Float[Tensor, "positives d"]
    negative: Float[Tensor, "negatives also_d"]

    def __post_init__(self) -> None:
        counts = len(self.positive), len(self.negative)
        if min(counts) < 2:
            raise Refusal(
                f"there are {counts[0]} positive examples and {counts[1]} negative ones; give at least 2 of each"
            )
        if self.positive.shape[1] != self.negative.shape[1]:
            raise Refusal(
                f"positive examples are {self.positive.shape[1]} wide and negative ones {self.negative.shape[1]}; "
                "read both at one site"
            )
        if not (self.positive.isfinite().all() and self.negative.isfinite().all()):
            raise NotFinite("some examples are not finite; leave them out, or mend the activations")

    @classmethod
    def of(cls, x: Float[Tensor, "rows d"], has: Tensor) -> "Contrast":
        """The rows that have it beside those that have not."""
        return cls(x[has.bool()], x[~has.bool()])

    @property
    def difference(self) -> Float[Tensor, "d"]:
        """Between the means."""
        return self.positive.mean(0) - self.negative.mean(0)

    @property
    def middle(self) -> Float[Tensor, "d"]:
        """Halfway between the means."""
        return (self.positive.mean(0) + self.negative.mean(0)) / 2

    @property
    def within(self) -> Float[Tensor, "rows d"]:
        """Every example less the mean of its own side: the noise."""
        return torch.cat((self.positive - self.positive.mean(0), self.negative - self.negative.mean(0)))


Finder = Callable[[Contrast], Float[Tensor, "d"]]


def mean_difference(contrast: Contrast) -> Float[Tensor, "d"]:
    """The difference of the means: contrastive activation addition (Rimsky et al. 2023, arXiv 2312.06681)."""
    return unit(contrast.difference)


def whitened(contrast: Contrast) -> Float[Tensor, "d"]:
    """The mean difference, along each axis of the noise as far as it is more than the error of two means.

    With noise of covariance S, the difference has the error N = S (1/n + 1/m). Of all directions being as likely
    beforehand, with square length t d, what is expected is t (t + N)^-1 difference; t is what its square length has
    beyond tr N, as in James & Stein 1961, Estimation with Quadratic Loss.
    """
    difference = contrast.difference.double()
    error = covariance(contrast.within) * (1 / len(contrast.positive) + 1 / len(contrast.negative))
    beyond = (difference.square().sum() - error.trace()) / len(difference)
    least = torch.finfo(error.dtype).eps * error.trace()
    size = beyond.clamp(min=float(least)) * torch.eye(len(difference), dtype=error.dtype, device=error.device)
    return unit(torch.linalg.solve(size + error, difference)).to(contrast.positive.dtype)


def principal(contrast: Contrast) -> Float[Tensor, "d"]:
    """The axis along which examples vary most about the middle of the two means; the difference of the means is in it.

    Centred on each side by itself, as it is often done, it would hold the noise alone.
    """
    x = torch.cat((contrast.positive, contrast.negative)) - contrast.middle
    axis = torch.linalg.svd(x.double(), full_matrices=False).Vh[0].to(x.dtype)
    return axis * torch.sign(axis @ contrast.difference)


def discriminant(contrast: Contrast) -> Float[Tensor, "d"]:
    """What separates the sides best in noise of their covariance: S^-1 difference (Fisher 1936)."""
    found = torch.linalg.solve(covariance(contrast.within), contrast.difference.double())
    return unit(found).to(contrast.positive.dtype)


def logistic_direction(contrast: Contrast) -> Float[Tensor, "d"]:
    """The weights of a logistic regression of the side, each side counted as half."""
    x, sides = torch.cat((contrast.positive, contrast.negative)), (len(contrast.positive), len(contrast.negative))
    spread = x.std(0).clamp(min=1e-8)
    wanted = torch.cat((x.new_ones(sides[0], 1), x.new_zeros(sides[1], 1)))
    share = torch.cat([x.new_full((n,), 0.5 / n) for n in sides])
    weight, _ = least_loss((x - contrast.middle) / spread, wanted, share, decay=DECAY, steps=STEPS)
    return unit(weight[:, 0] / spread)


FINDERS: dict[str, Finder] = {
    "mean_difference": mean_difference, "whitened": whitened, "principal": principal, "discriminant": discriminant,
    "logistic": logistic_direction,
}  # fmt: skip


def unit(v: Float[Tensor, "d"]) -> Float[Tensor, "d"]:
    """Of length one. Raises Refusal for a vector of no length."""
    length = v.norm()
    if not length > 0:
        raise Refusal("positive and negative examples have the same mean, so no direction leads from one to the other")
    return v / length


def covariance(centred: Float[Tensor, "rows d"]) -> Float[Tensor, "d d"]:
    """In double precision, drawn towards a multiple of the identity as far as its error asks for, so that it has an
    inverse: the oracle approximating shrinkage of Chen et al. 2010, arXiv 0907.4698, equation 23."""
    x, n, d = centred.double(), len(centred), centred.shape[1]
    found = x.T @ x / max(n - 1, 1)
    trace, square = found.trace(), found.square().sum()
    unlike = (square - trace.square() / d).clamp(min=1e-30)
    towards = (trace.square() + (1 - 2 / d) * square) / ((n + 1 - 2 / d) * unlike)
    share = towards.clamp(max=1)
    return (1 - share) * found + share * trace / d * torch.eye(d, dtype=x.dtype, device=x.device)
