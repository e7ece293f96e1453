"""Key frequencies of networks that were built with known ones, by every rule."""

import math

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.dynamics.fourier import basis, rows_of
from microtome.dynamics.frequencies import (
    agreement,
    by_embedding,
    by_neurons,
    by_outputs,
    neuron_frequencies,
)

P, KEYS = 13, [2, 6]


def neurons(frequencies: list[int]) -> Tensor:
    """relu(cos(w a + s) + cos(w b + s)) as Nanda et al. found them, a third of their phase each."""
    a, phase = torch.arange(P).float(), torch.arange(5)[:, None] * 0.7
    each = [torch.cos(2 * math.pi * k * a / P + phase) for k in frequencies]
    both = torch.cat(each)
    return torch.relu(both[:, :, None] + both[:, None, :]).permute(1, 2, 0)


def test_a_neuron_is_explained_by_the_frequency_it_was_made_of() -> None:
    found = neuron_frequencies(neurons(KEYS))
    assert found.frequency.tolist() == [2] * 5 + [6] * 5
    assert found.share.min() > 0.85 and found.share.max() <= 1 + 1e-6
    assert by_neurons(found) == KEYS


def test_the_share_is_what_a_regression_on_the_products_explains() -> None:
    x = torch.randn(P, P, 3).double()
    found, modes = neuron_frequencies(x), basis(P, torch.float64)
    for neuron, (k, share) in enumerate(zip(found.frequency.tolist(), found.share.tolist(), strict=True)):
        near = torch.cat((modes[:1], modes[rows_of([k], P)]))
        regressors = torch.einsum("ma,nb->abmn", near, near).flatten(2).flatten(0, 1)
        y = x[..., neuron].flatten()
        left = y - regressors @ torch.linalg.lstsq(regressors, y[:, None]).solution[:, 0]
        assert share == pytest.approx(float(1 - left.square().sum() / (y - y.mean()).square().sum()))


def test_neurons_that_never_change_belong_to_none() -> None:
    x = torch.cat((neurons(KEYS), torch.full((P, P, 1), 3.0), torch.zeros(P, P, 1)), 2)
    found = neuron_frequencies(x)
    assert found.share[-2:].tolist() == [0, 0]
    assert by_neurons(found) == KEYS


def test_few_neurons_do_not_make_a_key_frequency() -> None:
    x = torch.cat((neurons([2] * 12), neurons([4])[..., :1]), 2)
    assert by_neurons(neuron_frequencies(x)) == [2]
    assert by_neurons(neuron_frequencies(x), of_all=0.01) == [2, 4]


def test_all_rules_find_what_was_put_in() -> None:
    waves = basis(P)[rows_of(KEYS, P)]
    embedding = waves.T @ torch.randn(4, 8) * 3 + 0.01 * torch.randn(P, 8)
    outputs = waves.T @ torch.randn(4, 10) * 3 + 0.01 * torch.randn(P, 10)
    found = agreement(neurons(KEYS), embedding, outputs)
    assert found == (KEYS, KEYS, KEYS) and found.same
    assert by_embedding(embedding + 100) == by_outputs(outputs - 100) == KEYS  # a constant is no frequency


def test_a_threshold_outside_is_refused() -> None:
    with pytest.raises(Refusal, match=r"in \(0, 1\], not 0; 0.25 is usual"):
        by_embedding(torch.randn(P, 4), of_largest=0.0)
