"""Evaluation sees what is learned, and does not touch it."""

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import Refusal
from microtome.core.evaluated import evaluated
from microtome.core.fit import fit


class Noisy(nn.Module):
    """Learns with dropout, so that drawing a random number more or less shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)


def objective(learned: Noisy, batch: Tensor) -> dict[str, Tensor]:
    return {"loss": (learned.layer(nn.functional.dropout(batch)) - batch).pow(2).mean()}


def learning() -> fit:
    torch.manual_seed(0)
    return fit(Noisy(), [torch.ones(8, 4) * i for i in range(7)], objective)


def test_a_fit_that_is_watched_is_the_fit_unwatched() -> None:
    seen = []

    def witness(learned: Noisy) -> dict[str, float]:
        assert not learned.training and not torch.is_grad_enabled()
        seen.append(torch.rand(()).item())
        return {"weight": learned.layer.weight.sum().item()}

    plain, watched = learning(), learning()
    torch.manual_seed(3)
    steps = list(plain)
    torch.manual_seed(3)
    found = list(evaluated(watched, 3, witness))
    assert [each.step for each in found] == steps
    assert torch.equal(plain.learned.layer.weight, watched.learned.layer.weight)
    assert len(seen) == 2 and [bool(each.figures) for each in found] == [False, False, True] * 2 + [False]


def test_the_mode_is_put_back_even_after_an_error() -> None:
    def fails(learned: Noisy) -> dict[str, float]:
        raise KeyError("no such figure")

    watched = learning()
    watched.learned.train()
    with pytest.raises(KeyError):
        list(evaluated(watched, 1, fails))
    assert not watched.learned.training  # fit leaves it so after its step


def test_evaluating_less_than_never_is_refused() -> None:
    with pytest.raises(Refusal, match=r"every is 0; evaluate after each step \(1\) or fewer"):
        evaluated(learning(), 0, lambda learned: {})
