"""Intervals are those of documents drawn again, whatever the score."""

import pytest
import torch

from microtome.core.errors import Refusal
from microtome.evals.interval import by_document, f1, mean_f1, over_documents, over_fits


def test_documents_that_are_all_alike_leave_no_doubt(generator: torch.Generator) -> None:
    found = over_documents(torch.tensor([[3.0, 4.0]] * 7), lambda s: s[..., 0] / s[..., 1], generator)
    assert found.found == found.low == found.high == 0.75


def test_the_interval_of_a_mean_is_as_wide_as_the_law_of_large_numbers_says(generator: torch.Generator) -> None:
    values = torch.randn(400, 1, generator=generator)
    sums = torch.cat((values, torch.ones_like(values)), 1)
    found = over_documents(sums, lambda s: s[..., 0] / s[..., 1], generator, resamples=4000)
    assert found.low is not None and found.high is not None and found.low < found.found < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(values.std()) / 20, rel=0.08)


def test_one_document_tells_nothing_of_others(generator: torch.Generator) -> None:
    found = over_documents(torch.ones(1, 1), lambda s: s[..., 0], generator)
    assert found.found == 1 and found.low is None and found.high is None


def test_resamples_without_a_number_are_left_out(generator: torch.Generator) -> None:
    found = over_documents(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), lambda s: s[..., 0] / s[..., 1], generator)
    assert found.low == found.high == 1.0


def test_sums_go_to_their_documents_and_nowhere_else() -> None:
    found = by_document(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1, 0, 1]), 3)
    assert found.tolist() == [[2.0], [5.0], [0.0]]
    with pytest.raises(Refusal, match=r"numbered 0\.\.3, but there are 3"):
        by_document(torch.ones(2, 1), torch.tensor([0, 3]), 3)


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    assert float(f1(torch.tensor([6.0, 10.0, 8.0]))) == pytest.approx(2 / (1 / 0.6 + 1 / 0.75))
    assert float(mean_f1(torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0]))) == 0.5
    assert float(f1(torch.zeros(3))) == 0


def test_the_interval_over_fits_holds_the_truth_as_often_as_it_says(generator: torch.Generator) -> None:
    for fits in (2, 4):
        drawn = [over_fits(torch.randn(fits, generator=generator).tolist()) for _ in range(2000)]
        held = sum(one.low <= 0 <= one.high for one in drawn) / len(drawn)
        assert 0.93 < held < 0.97  # four standard errors of a share of .95 are .02
    assert over_fits([3.0]).low is None
