"""Restricted and excluded logits: exact projections, so they add up, and a network of waves alone has nothing else."""

import math

import pytest
import torch
from torch import Tensor, nn

from microtome.core.effects import effects
from microtome.core.errors import NoSuchComponent, Refusal
from microtome.core.inputs import Arrays
from microtome.core.measure import Measure
from microtome.dynamics.fourier import basis
from microtome.dynamics.progress import (
    excluded,
    excluded_loss,
    explained_by_waves,
    keep_waves,
    losses,
    mean_of_sums,
    pair_sums,
    remove_waves,
    restricted,
    restricted_loss,
    waves,
)
from microtome.models.load import load

P = 11
KEYS = [2, 5]


def cosines(frequencies: list[int], p: int = P) -> Tensor:
    """sum over k of cos(w_k (a + b - c)), written out."""
    a = torch.arange(p).double()
    angle = 2 * math.pi * (a[:, None, None] + a[:, None] - a) / p
    return torch.stack([torch.cos(k * angle) for k in frequencies]).sum(0)


def test_waves_are_the_projection_by_inner_products() -> None:
    logits, a = torch.randn(P, P, P).double(), torch.arange(P).double()
    wanted = torch.zeros_like(logits)
    for k in KEYS:
        for wave in (torch.cos, torch.sin):
            along = wave(2 * math.pi * k * (a[:, None] + a) / P)
            unit = along / along.norm()
            wanted += unit[..., None] * torch.einsum("ab,abc->c", unit, logits)
    torch.testing.assert_close(waves(logits, KEYS), wanted)
    torch.testing.assert_close(waves(waves(logits, KEYS), KEYS), wanted)


def test_what_is_kept_and_what_is_excluded_add_up() -> None:
    logits = torch.randn(P, P, P)
    both = restricted(logits, KEYS) + excluded(logits, KEYS)
    torch.testing.assert_close(both, logits + logits.mean((0, 1)))
    torch.testing.assert_close(excluded(restricted(logits, KEYS), KEYS), logits.mean((0, 1)).expand(P, P, P))


def test_all_frequencies_are_everything_that_depends_on_the_sum() -> None:
    logits = torch.randn(P, P, P).double()
    of_sums = mean_of_sums(logits)[pair_sums(P)]
    torch.testing.assert_close(restricted(logits, range(1, P // 2 + 1)), of_sums)


def test_a_network_of_its_key_waves_loses_everything_without_them() -> None:
    logits, seen = 9 * cosines(KEYS), torch.rand(P, P) < 0.4
    assert restricted_loss(logits, KEYS) == pytest.approx(float(losses(logits).mean()))
    assert excluded_loss(logits, KEYS, seen) == pytest.approx(math.log(P))
    assert explained_by_waves(logits, KEYS) == pytest.approx(1)
    assert explained_by_waves(logits, KEYS[:1]) == pytest.approx(0.5)


def test_the_share_explained_is_that_of_least_squares() -> None:
    logits = 3 * cosines(KEYS) + torch.randn(P, P, P).double() + torch.randn(P, P, 1).double()
    centred = (logits - logits.mean(2, keepdim=True)).flatten()
    regressors = torch.stack([cosines([k]).flatten() for k in KEYS], 1)
    left = centred - regressors @ torch.linalg.lstsq(regressors, centred[:, None]).solution[:, 0]
    assert explained_by_waves(logits, KEYS) == pytest.approx(float(1 - left.square().sum() / centred.square().sum()))


def test_losses_do_not_vanish_where_single_precision_would() -> None:
    logits = 30 * torch.nn.functional.one_hot(pair_sums(P), P).float()
    expected = math.log1p((P - 1) * math.exp(-30))
    torch.testing.assert_close(losses(logits), torch.full((P, P), expected, dtype=torch.float64))


def test_learnt_by_heart_is_excluded_loss_below_restricted() -> None:
    seen = torch.rand(P, P) < 0.5
    logits = 5 * torch.nn.functional.one_hot(pair_sums(P), P).double() * seen[..., None]
    assert excluded_loss(logits, KEYS, seen) < restricted_loss(logits, KEYS)


class Table(nn.Module):
    """Logits looked up by (a, b)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table, self.out = nn.Parameter(table), nn.Identity()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.out(self.table[a, b])


def test_as_edits_they_are_swept_like_any_other() -> None:
    logits = 2 * cosines(KEYS).float() + torch.randn(P, P, P)
    model = load(Table(logits), sites={"logits": ("out", "out", "batch vocab")})
    pairs, site = Arrays(tuple(torch.cartesian_prod(torch.arange(P), torch.arange(P)).T)), model.site("logits")
    loss = Measure(lambda t: losses(t["logits"].view(P, P, P)).flatten(), (site,), "loss")
    found = effects(model, pairs, [keep_waves(site, KEYS), remove_waves(site, KEYS), keep_waves(site, [1])], loss)
    seen = torch.rand(P, P) < 0.4
    assert float(found.after[0].mean()) == pytest.approx(restricted_loss(logits, KEYS))
    assert float(found.after[1][seen.flatten()].mean()) == pytest.approx(excluded_loss(logits, KEYS, seen))
    assert float(found.after[2].mean()) == pytest.approx(restricted_loss(logits, [1]))


def test_a_batch_that_is_not_all_pairs_is_refused() -> None:
    model = load(Table(torch.randn(P, P, P)), sites={"logits": ("out", "out", "batch vocab")})
    some = Arrays((torch.arange(3), torch.arange(3)))
    with pytest.raises(Refusal, match=r"\(3, 11\) at logits is not one answer for each of 11 x 11 pairs"):
        model.run(some, edit=[keep_waves(model.site("logits"), KEYS)])
    with pytest.raises(NoSuchComponent, match="frequency 0"):
        restricted(torch.randn(P, P, P), [0])


def test_the_basis_agrees_with_pair_sums() -> None:
    """A mode of the sum, spread over pairs, is a mode again: what `waves` rests on."""
    modes = basis(P, torch.float64)
    spread = modes[:, pair_sums(P)].flatten(1) / math.sqrt(P)
    torch.testing.assert_close(spread @ spread.T, torch.eye(P, dtype=torch.float64))
