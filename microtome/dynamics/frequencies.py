"""Which few frequencies a network for modular addition works with: three published rules, and each neuron's own.

The rules differ, and no threshold was published: by the neurons (Nanda et al. 2023, Section 4.3, the default), by the
embedding (their demonstration), by the map from neurons to logits (their Section 4.2). `Agreement` reports all three.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dynamics.fourier import pair_spectrum, power

EXPLAINED = 0.85  # of a neuron's variance by one frequency: then it belongs to that frequency
SHARE_OF_NEURONS = 0.02  # at least so many of all belong to a key frequency
SHARE_OF_LARGEST = 0.25  # a key frequency's length, of the largest's


class NeuronFrequencies(NamedTuple):
    """For each neuron the frequency that explains most of it, and the share of its variance that is explained.

    Neurons that are the same on all pairs have a share of 0.
    """

    frequency: Int[Tensor, "neurons"]
    share: Float[Tensor, "neurons"]

    def belong(self, least: float = EXPLAINED) -> Bool[Tensor, "neurons"]:
        """Which neurons are explained by one frequency."""
        return self.share > least


def neuron_frequencies(activations: Float[Tensor, "p p neurons"]) -> NeuronFrequencies:
    """Over all pairs (a, b): variance in the products of {1, cos, sin} of a with those of b at one frequency."""
    squares = pair_spectrum(activations).square()
    squares[0, 0] = 0
    blocks = torch.stack([block(squares, k) for k in range(1, len(squares) // 2 + 1)])
    total, (largest, which) = squares.sum((0, 1)), blocks.max(0)
    varies = total > 1e-12 * activations.square().sum((0, 1)).clamp(min=1e-30)
    return NeuronFrequencies(which + 1, torch.where(varies, largest / total.clamp(min=1e-30), 0.0))


def block(squares: Float[Tensor, "p p neurons"], k: int) -> Float[Tensor, "neurons"]:
    """The eight products of {1, cos k, sin k} with {1, cos k, sin k} that are not constant."""
    rows = torch.tensor([0, 2 * k - 1, 2 * k], device=squares.device)
    return squares[rows][:, rows].sum((0, 1))


def by_neurons(found: NeuronFrequencies, *, least: float = EXPLAINED, of_all: float = SHARE_OF_NEURONS) -> list[int]:
    """Frequencies to which at least the share `of_all` of the neurons belong, ascending."""
    counts = torch.bincount(found.frequency[found.belong(least)])
    return (counts >= max(1, of_all * len(found.share))).nonzero()[:, 0].tolist()


def by_embedding(embedding: Float[Tensor, "p d"], *, of_largest: float = SHARE_OF_LARGEST) -> list[int]:
    """Frequencies at which the embedding's cosine and sine together are long, against the longest."""
    return long(power(embedding).sqrt(), of_largest)


def by_outputs(neuron_logits: Float[Tensor, "p neurons"], *, of_largest: float = SHARE_OF_LARGEST) -> list[int]:
    """Frequencies at which W_U W_out, the map from neurons to logits, is long."""
    return long(power(neuron_logits).sqrt(), of_largest)


def long(lengths: Float[Tensor, "frequencies"], of_largest: float) -> list[int]:
    """Frequencies, from 1, that are at least so long a share of the longest. Raises Refusal outside (0, 1]."""
    if not 0 < of_largest <= 1:
        raise Refusal(f"a share of the largest lies in (0, 1], not {of_largest:g}; {SHARE_OF_LARGEST:g} is usual")
    return (1 + (lengths >= of_largest * lengths.max()).nonzero()[:, 0]).tolist()


class Agreement(NamedTuple):
    """The key frequencies by each rule."""

    neurons: list[int]
    embedding: list[int]
    outputs: list[int]

    @property
    def same(self) -> bool:
        """Whether neurons, embedding and outputs use the same frequencies."""
        return self.neurons == self.embedding == self.outputs


def agreement(
    activations: Float[Tensor, "p p neurons"],
    embedding: Float[Tensor, "p d"],
    neuron_logits: Float[Tensor, "p neurons"],
) -> Agreement:
    """All three rules on one network, with the usual thresholds."""
    return Agreement(by_neurons(neuron_frequencies(activations)), by_embedding(embedding), by_outputs(neuron_logits))
