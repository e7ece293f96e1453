"""Changes of curves that were made with them, and the phases of a run that was drawn by hand."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.dynamics.phases import change, crossing, line_costs, phases, segments


@pytest.mark.parametrize(("values", "at"), [([0.0, 0.1, 0.9, 1.0], 2), ([3.0, 2.9, 0.4, 0.0], 2), ([2.0, 1.0], 1)])
def test_a_change_is_where_a_curve_passes_its_middle(values: list[float], at: int) -> None:
    assert change(values) == at
    assert crossing(values, 0.99) == len(values) - 1


def test_costs_are_those_of_least_squares() -> None:
    y = torch.randn(9).double()
    costs = line_costs(y)
    for i in range(9):
        for j in range(i + 2, 9):
            x = torch.stack((torch.ones(j - i + 1), torch.arange(i, j + 1.0)), 1).double()
            left = y[i : j + 1] - x @ torch.linalg.lstsq(x, y[i : j + 1, None]).solution[:, 0]
            torch.testing.assert_close(costs[i, j], left.square().sum())
    assert costs[3, 4].isinf() and costs[4, 3].isinf()


def test_straight_pieces_are_found_where_they_were_put() -> None:
    y = [0.0] * 20 + [0.5 * i for i in range(15)] + [30.0 - i for i in range(15)]
    noise = 0.05 * torch.randn(50)
    assert segments([a + float(b) for a, b in zip(y, noise, strict=True)]) == pytest.approx([0, 20, 35], abs=1)
    assert segments((0.3 * torch.arange(40) + 0.1 * torch.randn(40)).tolist()) == [0]
    with pytest.raises(Refusal, match="2 values have no pieces"):
        segments([1.0, 2.0])


def test_phases_of_a_run_drawn_by_hand() -> None:
    steps = [100 * i for i in range(60)]
    excluded = [5 - 0.4 * i for i in range(10)] + [1 + 0.2 * i for i in range(50)]
    test = [5.0 + i / 10 for i in range(20)] + [7.0] * 20 + [7 * 10 ** (-i / 3) for i in range(1, 13)] + [7e-4] * 8
    found = phases(steps, test, excluded)
    assert found.in_order
    assert found == (1000, 4100, 5000)


def test_a_run_that_did_not_grok_is_refused() -> None:
    with pytest.raises(Refusal, match="falls from 6 to 5 only, which is no grokking; train longer"):
        phases([0, 1, 2, 3], [5.0, 6.0, 5.5, 5.0], [1.0, 1.0, 2.0, 3.0])
