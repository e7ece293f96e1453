"""Products with sparse codes equal the dense ones, forward and backward."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.core.sparse import bag_product, bag_sum, gather_dot, scatter_outer

# rows, k, n, d, seed; no row has more entries than there are indices
sizes = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(5, 9), st.integers(1, 6), st.integers(0, 10_000))


def drawn(rows: int, k: int, n: int, d: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    values, x, weights = (torch.randn(*s, dtype=torch.float64, generator=g) for s in ((rows, k), (rows, d), (n, d)))
    return values, torch.randint(n, (rows, k), generator=g), x, weights


@settings(deadline=None, max_examples=50)
@given(sizes)
def test_products_equal_the_dense_ones_also_where_an_index_comes_twice(size: tuple) -> None:
    values, indices, x, weights = drawn(*size)
    dense = torch.zeros(len(values), len(weights), dtype=torch.float64).scatter_add(1, indices, values)
    torch.testing.assert_close(bag_sum(values, indices, weights), dense @ weights)
    torch.testing.assert_close(gather_dot(x, weights, indices), (x @ weights.T).gather(1, indices))
    torch.testing.assert_close(scatter_outer(values, indices, x, len(weights)), dense.T @ x)


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_gradients_of_the_product_equal_dense_autograd(size: tuple) -> None:
    values, indices, _, weights = drawn(*size)
    one = [t.clone().requires_grad_() for t in (values, weights)]
    other = [t.clone().requires_grad_() for t in (values, weights)]
    bag_product(one[0], indices, one[1]).cos().sum().backward()
    dense = torch.zeros(len(values), len(weights), dtype=torch.float64).scatter_add(1, indices, other[0])
    (dense @ other[1]).cos().sum().backward()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_same_in_single_precision_with_many_rows() -> None:
    values, indices, x, weights = (t.float() if t.is_floating_point() else t for t in drawn(700, 8, 400, 32, 0))
    dense = torch.zeros(700, 400).scatter_add(1, indices, values)
    torch.testing.assert_close(scatter_outer(values, indices, x, 400), dense.T @ x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        gather_dot(x, weights, indices), (x @ weights.T).gather(1, indices), rtol=1e-4, atol=1e-4
    )
