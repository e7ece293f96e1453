"""The PyTorch kernels against dense formulas in double precision, at sizes that divide by nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microtome.dictionaries.kernels import torch_kernels
from microtome.dictionaries.kernels.parts import Active, Extra, Rate, Weights
from microtome.dictionaries.kernels.torch_kernels import TorchKernels

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SINGLE = {"rtol": 1e-4, "atol": 1e-5}
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}


def drawn(rows: int, d: int, n: int, dtype: torch.dtype, seed: int = 0) -> tuple[Weights, Tensor]:
    g = torch.Generator().manual_seed(seed)
    encoder, decoder = (torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1) for _ in range(2))
    weights = Weights(encoder, 0.1 * torch.randn(n, generator=g), decoder)
    return Weights(*(w.to(dtype) for w in weights)), torch.randn(rows, d, generator=g).to(dtype)


def dense(active: Active, n: int) -> Tensor:
    zeros = torch.zeros(len(active.values), n, dtype=torch.float64)
    return zeros.scatter_add(1, active.indices, active.values.double())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 130), st.integers(1, 9), st.integers(0, 10_000))
def test_encoding_keeps_the_largest_and_comparing_adds_them_up(rows: int, d: int, n: int, k: int, seed: int) -> None:
    weights, x = drawn(rows, d, n, torch.float64, seed)
    kernels = TorchKernels(weights, min(k, n))
    active = kernels.encode(x)
    pre = x @ weights.W_enc.T + weights.b_enc
    torch.testing.assert_close(
        active.values.sort(1).values, pre.topk(min(k, n), 1).values.relu().sort(1).values, **EXACT
    )
    torch.testing.assert_close(pre.gather(1, active.indices).relu(), active.values, **EXACT)
    error, squares, products = kernels.compare(x, active)
    expected = dense(active, n) @ weights.W_dec - x
    torch.testing.assert_close(error, expected, **EXACT)
    torch.testing.assert_close(squares, expected.pow(2).sum(), **EXACT)
    torch.testing.assert_close(products, (expected @ weights.W_dec.T).gather(1, active.indices), **EXACT)


@pytest.mark.parametrize("fast", [False, True])
def test_a_search_in_low_precision_gives_single_precision_codes(fast: bool) -> None:
    weights, x = drawn(300, 24, 500, torch.float32)
    active = TorchKernels(weights, 5, fast).encode(x)
    best = (x.double() @ weights.W_enc.double().T + weights.b_enc.double()).topk(5, 1).values.relu()
    torch.testing.assert_close(active.values.double().sort(1).values, best.sort(1).values, **SINGLE)


def extra_of(weights: Weights, which: Tensor) -> Extra:
    g = torch.Generator().manual_seed(9)
    return Extra(which, *(torch.randn(w[which].shape, generator=g).to(w.dtype) for w in weights))


@pytest.mark.parametrize("size", [7, 64, 1024])  # latents moved at once: many slices, two, one
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, EXACT), (torch.float32, SINGLE)])
def test_an_update_is_adam_on_the_dense_gradients_then_unit_length(
    size: int, dtype: torch.dtype, near: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_kernels, "SLICE", size)
    rows, d, n, k = 37, 24, 100, 5
    weights, x = drawn(rows, d, n, dtype)
    expected = [torch.nn.Parameter(w.double()) for w in weights]
    optimiser = torch.optim.Adam(expected, lr=1e-2)
    kernels = TorchKernels(weights, k)
    for step in range(1, 4):
        active = kernels.encode(x)
        error, gradients = kernels.compare(x, active).error, torch.randn(rows, k).to(dtype) * (active.values > 0)
        extra = extra_of(weights, torch.tensor([3, 50, 99])) if step > 1 else None
        by_latent = dense(Active(gradients, active.indices), n).T
        expected[0].grad, expected[1].grad = by_latent @ x.double(), by_latent.sum(1)
        expected[2].grad = dense(active, n).T @ error.double()
        for parameter, more in zip(expected, extra[1:] if extra else (), strict=False):
            parameter.grad.index_add_(0, extra.which, more.double())
        fired = kernels.update(x, error, active, gradients, extra, Rate(step, 1e-2, **ADAM))
        optimiser.step()
        with torch.no_grad():
            expected[2].div_(expected[2].norm(dim=1, keepdim=True))
        assert torch.equal(fired, (dense(active, n) > 0).any(0))
        for mine, theirs in zip(weights, expected, strict=True):
            torch.testing.assert_close(mine.double(), theirs.detach(), **near)


def test_an_entry_of_value_zero_is_not_active_and_latents_without_entries_still_decay() -> None:
    weights, x = drawn(2, 6, 20, torch.float64)
    kernels = TorchKernels(weights, 2)
    active = Active(torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64), torch.tensor([[4, 7], [4, 9]]))
    gradients = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    for moments in kernels.moments.values():
        moments[0].fill_(1.0)
    fired = kernels.update(x, x.clone(), active, gradients, None, Rate(1, 1e-3, **ADAM))
    assert fired.nonzero()[:, 0].tolist() == [4]
    torch.testing.assert_close(kernels.moments["W_enc"][0][7], torch.full((6,), 0.9, dtype=torch.float64))


def test_weights_changed_from_outside_are_searched_after_a_reload() -> None:
    weights, x = drawn(50, 16, 200, torch.float32)
    kernels = TorchKernels(weights, 4, fast=True)
    weights.W_enc.copy_(drawn(50, 16, 200, torch.float32, seed=1)[0].W_enc)
    kernels.reload()
    best = (x @ weights.W_enc.T + weights.b_enc).topk(4, 1).values.relu()
    torch.testing.assert_close(kernels.encode(x).values.sort(1).values, best.sort(1).values, **SINGLE)
