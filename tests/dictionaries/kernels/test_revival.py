"""AuxK's loss and gradients are those that autograd finds for the dead latents alone."""

import pytest
import torch
from torch import Tensor

from microtome.dictionaries.kernels import revival
from microtome.dictionaries.kernels.parts import Weights
from microtome.dictionaries.kernels.revival import revive

N, D, ROWS = 60, 12, 41


def drawn() -> tuple[Weights, Tensor, Tensor]:
    encoder, decoder, x, missing = (torch.randn(size, D, dtype=torch.float64) for size in (N, N, ROWS, ROWS))
    return Weights(encoder, torch.randn(N, dtype=torch.float64), decoder), x, missing


def expected(weights: Weights, dead: Tensor, k: int, weight: float, x: Tensor, missing: Tensor) -> list[Tensor]:
    """The loss, then the gradients of the dead, by autograd."""
    leaves = Weights(*(w[dead].requires_grad_() for w in weights))
    pre = torch.relu(x @ leaves.W_enc.T + leaves.b_enc)
    best = pre.topk(min(k, len(dead)), 1)
    missed = missing - torch.zeros_like(pre).scatter(1, best.indices, best.values) @ leaves.W_dec
    loss = weight * missed.pow(2).sum() / (missing - missing.mean(0)).pow(2).sum()
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("room", [1, 100, 2**22])  # a row at a time, several, all
@pytest.mark.parametrize("k", [3, 99])
def test_loss_and_gradients_are_those_of_autograd(room: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revival, "ROOM", room)
    weights, x, missing = drawn()
    dead = torch.tensor([0, 7, 8, 21, 33, 34, 59])
    found = revive(weights, dead, k, 0.3, x, missing, torch.float64)
    assert found is not None and torch.equal(found.extra.which, dead)
    for mine, theirs in zip([found.loss, *found.extra[1:]], expected(weights, dead, k, 0.3, x, missing), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_products_in_low_precision_are_near() -> None:
    weights, x, missing = drawn()
    single, dead = Weights(*(w.float() for w in weights)), torch.arange(N)
    found = revive(single, dead, N, 1.0, x.float(), missing.float(), torch.bfloat16)
    for mine, theirs in zip([found.loss, *found.extra[1:]], expected(weights, dead, N, 1.0, x, missing), strict=True):
        assert (mine - theirs).norm() < 0.02 * theirs.norm() and mine.dtype == torch.float32


def test_nothing_is_revived_by_what_does_not_vary() -> None:
    weights, x, _ = drawn()
    assert revive(weights, torch.tensor([1]), 1, 1.0, x, torch.zeros_like(x), torch.float64) is None
