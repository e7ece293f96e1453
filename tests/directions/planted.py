"""Examples that differ along a planted direction, in noise that is stronger along some axes than along others."""

import torch
from torch import Tensor

from microtome.directions.contrast import Contrast
from microtome.directions.pairs_of_answers import AnswerPairs


def unit(d: int, generator: torch.Generator) -> Tensor:
    v = torch.randn(d, generator=generator)
    return v / v.norm()


def contrast(
    generator: torch.Generator, signal: float = 2.0, d: int = 256, n: int = 200, falls: float = 1.0, size: float = 8.4
) -> tuple[Contrast, Tensor]:
    """Two sides whose means are `signal` apart along a random unit vector. Noise of standard deviation
    size / rank^falls along axes of its own, as activations of networks have it."""
    truth, axes = unit(d, generator), torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    spread = size * torch.arange(1, d + 1) ** -falls
    noise = [(torch.randn(n, d, generator=generator) * spread) @ axes.T for _ in range(2)]
    return Contrast(noise[0] + signal / 2 * truth, noise[1] - signal / 2 * truth), truth


def answers(
    generator: torch.Generator, n: int = 400, layers: int = 2, d: int = 32, distractor: float = 0.0
) -> tuple[AnswerPairs, Tensor, Tensor]:
    """Opposite answers with a truth direction, and one of a distractor that is opposite as well; both labels."""
    directions = [torch.stack([unit(d, generator) for _ in range(layers)]) for _ in range(2)]
    labels = [torch.rand(n, generator=generator) < 0.5 for _ in range(2)]
    topic = 0.5 * torch.randn(n, layers, d, generator=generator)
    signal = sum(
        2 * size * (2 * label.float() - 1)[:, None, None] * direction
        for size, label, direction in zip((1.0, distractor), labels, directions, strict=True)
    )
    yes, no = (topic + side * (signal + 1) + 0.2 * torch.randn(n, layers, d, generator=generator) for side in (1, -1))
    return AnswerPairs(yes, no), labels[0], labels[1]
