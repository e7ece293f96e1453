"""Modes modulo a prime: an orthonormal basis, a dictionary whose activities are the waves themselves."""

import math

import pytest
import torch

from microtome.core.edit import ablate
from microtome.core.errors import NoSuchComponent, Refusal
from microtome.core.inputs import Arrays
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.dynamics.fourier import (
    basis,
    embedding_modes,
    gini,
    mode_names,
    output_modes,
    pair_spectrum,
    power,
    rows_of,
    spectrum,
)

P = 11
EMBED = Site("embed", "batch d")


@pytest.mark.parametrize("p", [3, 11, 113])
def test_the_basis_is_orthonormal(p: int) -> None:
    torch.testing.assert_close(basis(p, torch.float64) @ basis(p, torch.float64).T, torch.eye(p, dtype=torch.float64))


def test_each_row_is_the_wave_that_its_name_says() -> None:
    a = torch.arange(P).double()
    for name, row in zip(mode_names(P), basis(P, torch.float64), strict=True):
        kind, _, k = name.partition(" ")
        wave = torch.ones(P) if kind == "1" else getattr(torch, kind)(2 * math.pi * int(k) * a / P)
        torch.testing.assert_close(row, (wave / wave.norm()).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("p", [2, 1, 112])
def test_an_even_modulus_is_refused(p: int) -> None:
    with pytest.raises(Refusal, match=f"{p} is no odd modulus; give an odd number"):
        basis(p)


def test_a_frequency_outside_is_refused() -> None:
    with pytest.raises(NoSuchComponent, match=r"frequency 6 is outside 1\.\.5"):
        rows_of([2, 6], P)


def test_power_is_the_squared_length_of_what_is_not_constant() -> None:
    x = torch.randn(P, 4)
    torch.testing.assert_close(power(x).sum(), (x - x.mean(0)).square().sum())
    torch.testing.assert_close(power(x[:, 0]), power(x[:, :1]))
    wave = torch.cos(2 * math.pi * 3 * torch.arange(P) / P + 0.4)
    assert power(wave).argmax() == 2 and power(wave)[2] > 0.9999 * power(wave).sum()


def test_a_pair_spectrum_is_products_of_modes() -> None:
    x, modes = torch.randn(P, P, 2), basis(P)
    found = pair_spectrum(x)
    wanted = torch.einsum("ma,nb,abc->mnc", modes, modes, x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(spectrum(x), torch.einsum("ma,abc->mbc", modes, x))


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_gini_is_0_of_equals_and_1_less_one_nth_of_one_alone(scale: float) -> None:
    assert gini(scale * torch.ones(8)) == pytest.approx(0)
    assert gini(scale * torch.eye(8)[3]) == pytest.approx(7 / 8)
    x = torch.rand(9)
    brute = (x[:, None] - x).abs().sum() / (2 * 81 * x.mean())
    assert gini(scale * x) == pytest.approx(float(brute), rel=1e-5)


def test_activities_of_an_embedding_are_its_modes_and_reconstruct_it() -> None:
    embedding = torch.randn(P, 16)
    modes = embedding_modes(EMBED, embedding)
    torch.testing.assert_close(modes.encode(embedding).dense(), basis(P).T, atol=1e-5, rtol=0)
    torch.testing.assert_close(modes.reconstruct(embedding), embedding, atol=1e-5, rtol=0)


def test_some_frequencies_read_the_same_as_all() -> None:
    embedding = torch.randn(P, 16)
    some, every = embedding_modes(EMBED, embedding, [2, 5]), embedding_modes(EMBED, embedding)
    rows = rows_of([2, 5], P)
    torch.testing.assert_close(some.encode(embedding).dense(), every.encode(embedding).dense()[:, rows])
    torch.testing.assert_close(some.directions().write, every.directions().write[rows])


def test_ablating_a_mode_is_removing_its_wave_from_the_embedding() -> None:
    embedding = torch.randn(P, 16)
    modes = embedding_modes(EMBED, embedding)
    arrived = Trace(Arrays((embedding,)), {"embed": embedding}, {"embed": EMBED})
    edit = ablate(modes[3])
    left = embedding + edit.value(embedding, EMBED.select(arrived.inputs, embedding.shape), arrived)
    wave = basis(P)[3]
    torch.testing.assert_close(left, embedding - torch.outer(wave, wave @ embedding), atol=1e-5, rtol=0)


def test_a_narrow_embedding_has_modes_of_few_frequencies_alone() -> None:
    waves = basis(P)[rows_of([1, 4], P)]
    embedding = waves.T @ torch.randn(4, 6)
    modes = embedding_modes(EMBED, embedding, [1, 4])
    torch.testing.assert_close(modes.encode(embedding).dense(), waves.T, atol=1e-4, rtol=0)
    with pytest.raises(Refusal, match="11 modes write fewer independent directions in an embedding of width 6"):
        embedding_modes(EMBED, embedding)
    with pytest.raises(Refusal, match="6 modes write fewer"):
        embedding_modes(EMBED, embedding, [1, 2, 4])


def test_output_modes_are_a_basis_of_the_logits() -> None:
    modes, logits = output_modes(Site("logits", "batch vocab"), P), torch.randn(5, P)
    torch.testing.assert_close(modes.reconstruct(logits), logits, atol=1e-5, rtol=0)
