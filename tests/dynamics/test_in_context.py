"""What a network learns from its context, on losses that were written down."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dynamics.in_context import in_context_score


def test_it_is_the_late_loss_less_the_early_one() -> None:
    losses = torch.rand(3, 20)
    losses[:, 1:5], losses[:, -8:] = 4.0, 1.5
    torch.testing.assert_close(in_context_score(losses), torch.tensor(-2.5))
    torch.testing.assert_close(in_context_score(losses, slice(2, 4), slice(-1, None)), torch.tensor(-2.5))


def test_rows_without_an_early_part_are_refused() -> None:
    with pytest.raises(Refusal, match="rows of 9 losses have no tokens that come late"):
        in_context_score(torch.rand(2, 9))
    assert in_context_score(torch.ones(2, 10)) == 0
