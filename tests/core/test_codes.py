"""Three forms of codes are one thing: sparse ones give the dense ones' values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.core.codes import Codes, DenseCodes, RaggedCodes, TopCodes
from microtome.core.sparse import bag_product

LEADS = [(), (5,), (2, 3), (2, 1, 2), (0,)]
FORMS = ["top", "ragged", "dense"]


def sparse_values(seed: int, lead: tuple[int, ...], width: int, k: int) -> Tensor:
    """Dense signed values with at most k of them nonzero at each place."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*lead, width, dtype=torch.float64, generator=generator)
    chosen = torch.rand(*lead, width, generator=generator).topk(k, -1).indices
    mask = torch.zeros_like(values).scatter(-1, chosen, 1.0)
    return values * mask * (torch.rand(*lead, width, generator=generator) < 0.8)


def as_form(form: str, dense: Tensor, k: int) -> Codes:
    width, lead = dense.shape[-1], dense.shape[:-1]
    if form == "dense":
        return DenseCodes(dense)
    indices = (dense != 0).int().topk(k, -1).indices
    if form == "top":
        return TopCodes(dense.gather(-1, indices), indices, width)
    flat = dense.reshape(-1, width)
    active = flat != 0
    offsets = torch.cat((torch.zeros(1, dtype=torch.long), active.sum(1).cumsum(0)))
    return RaggedCodes(flat[active], active.nonzero()[:, 1], offsets, lead, width)


cases = st.tuples(st.integers(0, 10_000), st.sampled_from(LEADS), st.integers(3, 9), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from(FORMS))
def test_every_form_says_what_the_dense_values_say(case: tuple, form: str) -> None:
    seed, lead, width, k = case
    values = sparse_values(seed, lead, width, k)
    codes, weights = as_form(form, values, k), torch.randn(width, 4, dtype=torch.float64)
    assert codes.shape == lead and codes.width == width
    assert torch.equal(codes.dense(), values)
    assert all(torch.equal(codes.of(i), values[..., i]) for i in range(width))
    torch.testing.assert_close(codes.times(weights), values @ weights)
    by = torch.randn(width, dtype=torch.float64)
    assert torch.equal(codes.scaled(by).dense(), values * by)
    flat = values.reshape(-1, width)
    assert sorted(codes) == sorted((r, c, flat[r, c].item()) for r, c in flat.nonzero().tolist())
    assert codes.l0().item() == pytest.approx(flat.count_nonzero().item() / max(1, len(flat)))


@settings(deadline=None, max_examples=60)
@given(cases, st.sampled_from(FORMS), st.integers(1, 12))
def test_the_strongest_are_the_same_in_every_form_strongest_first(case: tuple, form: str, n: int) -> None:
    seed, lead, width, k = case
    values = sparse_values(seed, lead, width, k)
    top = as_form(form, values, k).top(n)
    assert top.values.shape == (*lead, min(n, width)) == top.indices.shape
    assert torch.equal(top.values.abs(), values.abs().topk(min(n, width), -1).values)
    kept = top.dense()
    assert torch.equal(kept[kept != 0], values[kept != 0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lead", [(4,), (2, 3)])
def test_gradients_are_those_of_the_dense_values(form: str, lead: tuple[int, ...]) -> None:
    dense = sparse_values(1, lead, 7, 3)

    def through(codes: Codes, weights: Tensor, by: Tensor) -> Tensor:
        scaled = codes.scaled(by)
        return scaled.times(weights).sin().sum() + 3 * scaled.of(2).sum() + scaled.dense().pow(3).sum()

    def run(make: str) -> list[Tensor]:
        leaf = dense.clone().requires_grad_()
        weights = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
        by = torch.linspace(0.5, 2, 7, dtype=torch.float64).requires_grad_()
        total = through(as_form(make, leaf, 3), weights, by)
        found = torch.autograd.grad(total, [leaf, weights, by])
        return [found[0] * (dense != 0), *found[1:]]

    for found, expected in zip(run(form), run("dense"), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_sparse_product_passes_the_finite_difference_check() -> None:
    values = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[0, 1, 2], [5, 4, 3], [0, 0, 1], [2, 2, 2], [1, 3, 5]])
    torch.autograd.gradcheck(lambda v, w: bag_product(v, indices, w), (values, weights))


def test_a_component_that_is_named_twice_counts_twice() -> None:
    codes = TopCodes(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 1]]), 3)
    assert codes.dense().tolist() == [[0, 3, 0]] and codes.of(1).tolist() == [3]
