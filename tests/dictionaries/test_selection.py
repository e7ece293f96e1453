"""The k largest pre-activations are exactly the k largest, with the gradients of a dense product."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.dictionaries.selection import batch_top, largest, starts_of, top_linear


def as_sets(values: Tensor) -> Tensor:
    return values.sort(-1).values


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 6), st.integers(1, 20), st.integers(1, 16), st.integers(0, 10_000), st.booleans())
def test_the_largest_are_those_of_topk_ties_included(rows: int, groups: int, k: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 16 * groups
    scores = (
        torch.randint(-2, 3, (rows, n), generator=generator).float()
        if ties
        else torch.randn(rows, n, generator=generator)
    )
    values, indices = largest(scores, min(k, n))
    assert torch.equal(as_sets(values), as_sets(scores.topk(min(k, n), 1).values))
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 16), st.integers(0, 10_000), st.floats(-3, 3))
def test_so_are_those_of_bfloat16_whatever_their_signs(rows: int, groups: int, k: int, seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(rows, 8 * groups, generator=generator) + shift).bfloat16()
    values, indices = largest(scores, min(k, 8 * groups))
    assert torch.equal(as_sets(values), as_sets(scores.topk(min(k, 8 * groups), 1).values))
    assert torch.equal(scores.gather(1, indices), values)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def problem(kind: str, n: int = 512, d: int = 48, rows: int = 700) -> tuple[Tensor, Tensor, Tensor]:
    weights, bias = torch.nn.functional.normalize(torch.randn(n, d), dim=1), 0.1 * torch.randn(n)
    x = torch.randn(rows, d)
    if kind == "correlated":  # every direction near one of sixteen, inputs far from zero: scores lie close together
        weights = torch.nn.functional.normalize(weights[torch.arange(n) % 16] + 0.2 * weights, dim=1)
        x = x + 4 * torch.randn(d)
    return x, weights, bias


@pytest.mark.parametrize("kind", ["random", "correlated"])
@pytest.mark.parametrize("fast", [False, True])
def test_the_search_in_low_precision_finds_what_the_exact_product_finds(kind: str, fast: bool) -> None:
    x, weights, bias = problem(kind)
    values, indices = top_linear(x, weights, bias, 16, fast)
    exact = x @ weights.T + bias
    torch.testing.assert_close(as_sets(values), as_sets(exact.topk(16, 1).values), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exact.gather(1, indices), values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fast", [False, True])
def test_its_gradients_are_those_of_the_dense_product(fast: bool) -> None:
    leaves = [t.requires_grad_() for t in problem("random", n=96, d=10, rows=40)]
    values, indices = top_linear(*leaves, 5, fast)
    factor = torch.randn(40, 5)
    found = torch.autograd.grad((values * factor).sin().sum(), leaves)
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    x, weights, bias = doubles
    expected = torch.autograd.grad((((x @ weights.T + bias).gather(1, indices)) * factor.double()).sin().sum(), doubles)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 17, 40])
def test_all_components_may_be_asked_for(k: int) -> None:
    x, weights, bias = problem("random", n=40, d=6, rows=3)
    values, _ = top_linear(x, weights, bias, k, fast=True)
    torch.testing.assert_close(as_sets(values), as_sets((x @ weights.T + bias).topk(k, 1).values), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- of a whole batch


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 90), st.integers(1, 6), st.integers(0, 10_000), st.floats(0, 6))
def test_those_of_a_batch_are_those_of_a_flattened_topk(rows: int, n: int, k: int, seed: int, uneven: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    k = min(k, n)
    x = torch.randn(rows, 7, generator=generator, dtype=torch.float64)
    x = x * (1 + uneven * torch.rand(rows, 1, generator=generator)) ** 3  # a few rows may take nearly all
    weights = torch.randn(n, 7, generator=generator, dtype=torch.float64)
    bias = torch.randn(n, generator=generator, dtype=torch.float64)
    values, places = batch_top(x, weights, bias, k)
    scores = (x @ weights.T + bias).flatten()
    torch.testing.assert_close(as_sets(values), as_sets(scores.topk(rows * k).values))
    torch.testing.assert_close(scores[places], values)
    assert (places.diff() > 0).all()
    assert torch.equal(starts_of(places, rows, n).diff(), torch.bincount(places // n, minlength=rows))


def test_ties_over_a_whole_batch_give_as_many_as_were_asked_for() -> None:
    values, places = batch_top(torch.ones(9, 3), torch.ones(40, 3), torch.zeros(40), 4)
    assert torch.equal(values, torch.full((36,), 3.0)) and len(set(places.tolist())) == 36


@pytest.mark.parametrize("kind", ["random", "correlated", "one row"])
@pytest.mark.parametrize("fast", [False, True])
def test_a_batch_searched_in_low_precision_finds_the_same(kind: str, fast: bool) -> None:
    x, weights, bias = problem(kind)
    if kind == "one row":
        x[3] *= 1000
    values, places = batch_top(x, weights, bias, 16, fast)
    exact = (x.double() @ weights.T.double() + bias.double()).flatten()
    best = exact.topk(16 * len(x)).values
    torch.testing.assert_close(as_sets(values).double(), as_sets(best), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(exact[places], values.double(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("fast", [False, True])
def test_gradients_of_a_batch_are_those_of_the_dense_product(fast: bool) -> None:
    leaves = [t.requires_grad_() for t in problem("random", n=96, d=10, rows=40)]
    values, places = batch_top(*leaves, 5, fast)
    factor = torch.randn(200)
    found = torch.autograd.grad((values * factor).sin().sum(), leaves)
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    x, weights, bias = doubles
    dense = (x @ weights.T + bias).flatten()[places]
    expected = torch.autograd.grad((dense * factor.double()).sin().sum(), doubles)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
