"""The k largest pre-activations are exactly the k largest, with the gradients of a dense product."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.dictionaries.selection import largest, top_linear


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
