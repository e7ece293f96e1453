"""The steps in C are those of dense float64 arithmetic, whatever the sizes and however many threads."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from microtome.core.errors import Refusal
from microtome.dictionaries.kernels import native
from microtome.dictionaries.kernels.native import NativeKernels, can_search_bytes, measured_recall
from microtome.dictionaries.kernels.parts import Active, Extra, Rate, Weights

pytestmark = pytest.mark.skipif(
    bool(native.reason()), reason=f"the C library of the sparse step cannot be used here: {native.reason()}"
)
needs_bytes = pytest.mark.skipif(not can_search_bytes(1), reason="the processor has no VNNI")
SEARCHES = ["bf16", pytest.param("int8", marks=needs_bytes)]
sizes = settings(deadline=None, max_examples=40)
odd = st.integers(1, 40), st.integers(1, 70), st.integers(1, 150), st.integers(1, 150), st.integers(0, 10_000)


def weights_of(n: int, d: int, generator: torch.Generator) -> Weights:
    rows = torch.randn(n, d, generator=generator)
    return Weights(normalize(rows, dim=1), 0.1 * torch.randn(n, generator=generator), normalize(rows + 0.1, dim=1))


def problem(rows: int, d: int, n: int, seed: int = 0) -> tuple[Tensor, Weights]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, d, generator=generator), weights_of(n, d, generator)


def copied(weights: Weights) -> Weights:
    return Weights(*(w.clone() for w in weights))


def scores_of(x: Tensor, weights: Weights) -> Tensor:
    return x.double() @ weights.W_enc.double().T + weights.b_enc.double()


def as_sets(values: Tensor) -> Tensor:
    return values.sort(-1).values


def some_codes(rows: int, n: int, k: int, generator: torch.Generator) -> Active:
    """Random entries, different within a row, some of value zero."""
    indices = torch.rand(rows, n, generator=generator).argsort(1)[:, :k]
    return Active(torch.randn(rows, k, generator=generator).relu(), indices)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    expected = expected.double()
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol * max(scale, 1e-6))


# ---- encode ----


@pytest.mark.parametrize("search", SEARCHES)
@sizes
@given(*odd)
def test_codes_are_exact_scores_of_different_latents(search: str, rows: int, d: int, n: int, k: int, seed: int) -> None:
    x, weights = problem(rows, d, n, seed)
    k = min(k, n)
    values, indices = NativeKernels(weights, k, search).encode(x)
    close(values, scores_of(x, weights).gather(1, indices).relu())
    assert (indices.diff(dim=1) > 0).all(), "ascending, so that nobody sees who found them"


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(
    ("rows", "d", "n", "k"), [(300, 64, 1000, 12), (205, 100, 777, 5), (30, 300, 4100, 33), (13, 7, 40, 40)]
)
def test_they_are_the_k_largest(search: str, rows: int, d: int, n: int, k: int) -> None:
    x, weights = problem(rows, d, n)
    values, _ = NativeKernels(weights, k, search).encode(x)
    close(as_sets(values), as_sets(scores_of(x, weights).topk(k, 1).values.relu()))


@pytest.mark.parametrize("search", SEARCHES)
def test_of_equal_scores_the_lower_latent_is_chosen(search: str) -> None:
    weights = Weights(torch.ones(500, 4), torch.zeros(500), torch.ones(500, 4))
    _, indices = NativeKernels(weights, 7, search).encode(torch.ones(50, 4))
    assert torch.equal(indices, torch.arange(7).expand(50, 7))


@pytest.mark.parametrize("search", SEARCHES)
def test_the_order_of_latents_does_not_matter_to_the_search(search: str) -> None:
    """Scores that rise along the latents fill the pool of candidates again and again; those that fall never do."""
    x, n = torch.ones(40, 8), 3000
    rising = torch.linspace(0.1, 2, n)[:, None].expand(n, 8).contiguous()
    for encoder in (rising, rising.flip(0).contiguous()):
        weights = Weights(encoder, torch.zeros(n), encoder.clone())
        values, _ = NativeKernels(weights, 9, search).encode(x)
        close(as_sets(values), as_sets(scores_of(x, weights).topk(9, 1).values))


@pytest.mark.parametrize("search", SEARCHES)
def test_rows_unlike_those_before_them_are_searched_again(search: str) -> None:
    """Thresholds are guessed from earlier rows: too high for rows that are small, or that point away from everything."""
    x, weights = problem(400, 32, 900)
    x[::7] *= 1e-3
    x[3::11] = -weights.W_enc.sum(0)
    weights.b_enc.zero_()
    kernels = NativeKernels(weights, 6, search)
    close(as_sets(kernels.encode(x).values), as_sets(scores_of(x, weights).topk(6, 1).values.relu()), 1e-4)


@pytest.mark.parametrize("search", SEARCHES)
def test_rows_of_zeros_are_their_biases(search: str) -> None:
    x, weights = problem(20, 16, 200)
    values, _ = NativeKernels(weights, 5, search).encode(0 * x)
    close(as_sets(values), as_sets(weights.b_enc.topk(5).values.expand(20, 5)))


@pytest.mark.parametrize("search", SEARCHES)
def test_what_is_not_a_number_shows(search: str) -> None:
    x, weights = problem(30, 16, 200)
    x[4, 3] = torch.nan
    values, _ = NativeKernels(weights, 5, search).encode(x)
    assert values[4].isnan().all()
    assert values[:4].isfinite().all() and values[5:].isfinite().all()


def test_a_view_is_read_as_its_values() -> None:
    x, weights = problem(20, 16, 200)
    kernels = NativeKernels(weights, 5)
    strided = torch.stack([x, x], 2)[:, :, 0]
    assert all(map(torch.equal, kernels.encode(strided), kernels.encode(x)))


# ---- recall ----


LOUD = [3, 17, 40, 55]


def outlying(quiet: Tensor) -> Tensor:
    """Four dimensions thirty times as large as the others."""
    loud = quiet.clone()
    loud[:, LOUD] *= 30
    return loud


@pytest.fixture
def learned() -> tuple[Tensor, Weights]:
    """Activations, and a dictionary that listens little to four of their dimensions."""
    x, weights = problem(500, 256, 2048)
    weights.W_enc[:, LOUD] /= 30
    weights.b_enc.zero_()
    return x, weights


@needs_bytes
def test_recall_is_one_on_plain_activations_and_less_with_outlying_dimensions(learned: tuple[Tensor, Weights]) -> None:
    x, (encoder, bias, _) = learned
    assert measured_recall(x, encoder, bias, 16) == 1.0
    assert measured_recall(outlying(x), encoder, bias, 16) < native.LEAST_RECALL


@needs_bytes
def test_bytes_give_way_to_the_product_where_they_miss(learned: tuple[Tensor, Weights]) -> None:
    x, weights = learned
    kernels = NativeKernels(weights, 16)
    kernels.encode(x)
    assert kernels.searching == "int8"
    kernels = NativeKernels(weights, 16)
    values, _ = kernels.encode(outlying(x))
    assert kernels.searching == "bf16"
    close(as_sets(values), as_sets(scores_of(outlying(x), weights).topk(16, 1).values.relu()))


@needs_bytes
def test_recall_is_measured_again(learned: tuple[Tensor, Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "RECHECKED", 3)
    x, weights = learned
    kernels = NativeKernels(weights, 16)
    for batch in (x, outlying(x), outlying(x)):
        kernels.encode(batch)
        assert kernels.searching == "int8", "not looked at yet"
    kernels.encode(outlying(x))
    assert kernels.searching == "bf16"


@needs_bytes
def test_kernels_that_remember_go_on_as_they_would_have(learned: tuple[Tensor, Weights]) -> None:
    """When recall is measured next, and that bytes were given up, belong to a state that is resumed."""
    x, weights = learned
    kernels, other = NativeKernels(weights, 16), NativeKernels(weights, 16)
    kernels.encode(outlying(x))
    other.remember(kernels.remembered())
    assert (other.searching, other.encoded) == ("bf16", 1)
    other = NativeKernels(weights, 16)
    other.remember([])
    assert (other.searching, other.encoded) == ("int8", 0)


# ---- compare ----


@sizes
@given(*odd)
def test_comparing_is_decoding_and_subtracting(rows: int, d: int, n: int, k: int, seed: int) -> None:
    x, weights = problem(rows, d, n, seed)
    active = some_codes(rows, n, min(k, n), torch.Generator().manual_seed(seed))
    error, squares, products = NativeKernels(weights, min(k, n)).compare(x, active)
    decoder = weights.W_dec.double()
    expected = torch.einsum("rk,rkd->rd", active.values.double(), decoder[active.indices]) - x.double()
    close(error, expected)
    close(squares, expected.pow(2).sum())
    close(products, torch.einsum("rd,rkd->rk", expected, decoder[active.indices]), 1e-4)


# ---- update ----


def some_extra(n: int, d: int, generator: torch.Generator) -> Extra:
    which = torch.rand(n, generator=generator).argsort()[: max(n // 3, 1)].sort().values
    parts = [torch.randn(len(which), *shape, generator=generator) for shape in ((d,), (), (d,))]
    return Extra(which, *parts)


def dense_gradients(x: Tensor, error: Tensor, active: Active, slopes: Tensor, n: int, extra: Extra | None) -> Weights:
    """The gradients of the three weights, by dense matrix products."""
    codes = x.new_zeros(len(x), n).scatter_add_(1, active.indices, active.values.to(x))
    slope = x.new_zeros(len(x), n).scatter_add_(1, active.indices, slopes.to(x))
    found = Weights(slope.T @ x, slope.sum(0), codes.T @ error)
    if extra is not None:
        for gradient, more in zip(found, extra[1:], strict=True):
            gradient.index_add_(0, extra.which, more.to(x))
    return found


class DenseAdam:
    """Adam of torch in float64 on dense gradients, then unit length."""

    def __init__(self, weights: Weights, rate: Rate):
        self.weights = Weights(*(w.double().requires_grad_() for w in weights))
        self.optimiser = torch.optim.Adam(self.weights, lr=rate.lr, betas=rate.betas, eps=rate.eps)

    def step(self, gradients: Weights) -> None:
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient.double()
        self.optimiser.step()
        with torch.no_grad():
            self.weights.W_dec.copy_(normalize(self.weights.W_dec, dim=1))


def rate_of(step: int) -> Rate:
    return Rate(step, 1e-2, (0.8, 0.95), 1e-6)


@pytest.mark.parametrize("search", SEARCHES)
@sizes
@given(*odd, st.booleans())
def test_updating_is_adam_on_dense_gradients(
    search: str, rows: int, d: int, n: int, k: int, seed: int, with_extra: bool
) -> None:
    generator, k = torch.Generator().manual_seed(seed), min(k, n)
    _, weights = problem(rows, d, n, seed)
    reference, kernels = DenseAdam(weights, rate_of(1)), NativeKernels(copied(weights), k, search)
    for step in (1, 2, 3):
        x, error = torch.randn(rows, d, generator=generator), torch.randn(rows, d, generator=generator)
        active = some_codes(rows, n, k, generator)
        slopes = torch.randn(rows, k, generator=generator) * (active.values > 0)
        extra = some_extra(n, d, generator) if with_extra else None
        fired = kernels.update(x, error, active, slopes, extra, rate_of(step))
        reference.step(dense_gradients(x.double(), error.double(), active, slopes, n, extra))
        assert set(fired.nonzero()[:, 0].tolist()) == set(active.indices[active.values > 0].tolist())
    for found, expected in zip(kernels.weights, reference.weights, strict=True):
        close(found, expected.detach(), 1e-3)
    state = {name: reference.optimiser.state[w] for name, w in reference.weights._asdict().items()}
    for name, (first, second) in kernels.moments.items():
        close(first, state[name]["exp_avg"], 1e-4)
        close(second, state[name]["exp_avg_sq"], 1e-4)


def test_no_extra_gradients_are_none() -> None:
    x, weights = problem(20, 9, 50)
    active = some_codes(20, 50, 4, torch.Generator().manual_seed(0))
    none = Extra(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, 9))
    moved = []
    for extra in (None, none):
        kernels = NativeKernels(copied(weights), 4)
        kernels.update(x, x, active, active.values, extra, rate_of(1))
        moved.append(kernels.weights)
    assert all(map(torch.equal, *moved))


def test_moments_too_small_for_a_float_become_zero() -> None:
    """They would stay at the smallest number there is for ever, and slow every step."""
    x, weights = problem(4, 20, 10)
    kernels = NativeKernels(weights, 2)
    for first, second in kernels.moments.values():
        first.fill_(1.2e-38)
        second.fill_(1.2e-38)
    nothing = Active(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.int64))
    kernels.update(x, x, nothing, torch.zeros(4, 2), None, rate_of(1))
    assert not any(moment.any() for pair in kernels.moments.values() for moment in pair)
    assert (torch.full((3,), 1.2e-38) * 0.8).all(), "and only inside the library"


@pytest.mark.parametrize("search", SEARCHES)
def test_the_search_sees_the_weights_as_they_are_now(search: str) -> None:
    """After an update, and after a reload: the copy that is searched is the one that a new set of kernels would make."""
    x, weights = problem(60, 40, 333)
    kernels = NativeKernels(weights, 8, search)
    active = kernels.encode(x)
    kernels.update(x, x, active, active.values, None, rate_of(1))
    again = NativeKernels(copied(kernels.weights), 8, search)
    assert all(map(same, copies(kernels), copies(again)))
    kernels.weights.W_enc.copy_(kernels.weights.W_enc.flip(0))
    kernels.reload()
    again = NativeKernels(copied(kernels.weights), 8, search)
    assert all(map(same, copies(kernels), copies(again)))


def copies(kernels: NativeKernels) -> tuple[Tensor | None, ...]:
    return kernels.search.rounded, kernels.search.packed, kernels.search.scales


def same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other is None or torch.equal(one, other)


def test_rounding_to_bfloat16_is_that_of_torch() -> None:
    numbers = torch.randn(40, 37) * torch.logspace(-40, 38, 37)
    numbers[0, :6] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 3.4e38, 1.00390625])
    kernels = NativeKernels(Weights(numbers, torch.zeros(40), numbers.clone()), 3, "bf16")
    if kernels.search.rounded is None:
        pytest.skip("the product is made in float32 here")
    assert torch.equal(kernels.search.rounded, numbers.bfloat16())


# ---- whole steps ----


def sparse_step(kernels: NativeKernels, x: Tensor, step: int) -> Tensor:
    """One step on the mean squared error of a row; the loss."""
    active = kernels.encode(x)
    error, squares, products = kernels.compare(x, active)
    scale = 2 / len(x)
    kernels.update(x, scale * error, active, scale * products * (active.values > 0), None, rate_of(step))
    return squares / len(x)


def dense_step(reference: DenseAdam, x: Tensor, k: int) -> Tensor:
    """The same by autograd, in float64."""
    encoder, bias, decoder = reference.weights
    best = (x @ encoder.T + bias).topk(k, 1)
    codes = x.new_zeros(len(x), len(bias)).scatter(1, best.indices, best.values.relu())
    loss = (codes @ decoder - x).pow(2).sum(1).mean()
    reference.step(Weights(*torch.autograd.grad(loss, reference.weights)))
    return loss.detach()


@pytest.mark.parametrize("search", SEARCHES)
def test_steps_are_those_of_autograd(search: str) -> None:
    x, weights = problem(128, 24, 200)
    reference, kernels = DenseAdam(weights, rate_of(1)), NativeKernels(copied(weights), 5, search)
    for step in range(1, 6):
        expected = dense_step(reference, x.double(), 5)
        close(sparse_step(kernels, x, step), expected, 1e-4)
    for found, wanted in zip(kernels.weights, reference.weights, strict=True):
        close(found, wanted.detach(), 1e-3)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_it_has_the_threads_of_torch(threads: Callable[[int], None]) -> None:
    for count in (1, 2, 3):
        threads(count)
        assert native.threads() == count


@pytest.mark.parametrize("search", SEARCHES)
def test_numbers_do_not_depend_on_threads(search: str, threads: Callable[[int], None]) -> None:
    x, weights = problem(431, 45, 700)
    outcomes = []
    for count in (1, 2, 3):
        threads(count)
        kernels = NativeKernels(copied(weights), 6, search)
        losses = [sparse_step(kernels, x, step) for step in (1, 2, 3)]
        moments = [moment for pair in kernels.moments.values() for moment in pair]
        outcomes.append([*losses, *kernels.weights, *moments])
    for other in outcomes[1:]:
        assert all(map(torch.equal, outcomes[0], other))


# ---- what it refuses ----


@pytest.mark.parametrize("k", [0, 13])
def test_more_latents_than_there_are_and_none_are_refused(k: int) -> None:
    _, weights = problem(1, 5, 12)
    with pytest.raises(Refusal, match=f"k is {k} with 12 latents; it must be from 1 to 12"):
        NativeKernels(weights, k)


def test_a_search_of_no_known_name_is_refused() -> None:
    _, weights = problem(1, 5, 12)
    with pytest.raises(Refusal, match="search is 'fp8'; it is 'int8', 'bf16', or None"):
        native._refuse(weights, 3, "fp8")


def test_bytes_are_refused_where_their_sums_would_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "WIDEST", 4)
    _, weights = problem(1, 5, 12)
    with pytest.raises(Refusal, match="bytes cannot be searched in 5 dimensions here"):
        NativeKernels(weights, 3, "int8")
    assert NativeKernels(weights, 3).searching == "bf16"


def test_weights_of_another_type_are_refused() -> None:
    _, weights = problem(1, 5, 12)
    with pytest.raises(Refusal, match=r"W_enc is torch.float64 on cpu; .* contiguous float32"):
        NativeKernels(Weights(*(w.double() for w in weights)), 3)


def test_where_it_is_not_built_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert NativeKernels.available()
    monkeypatch.setattr(native, "library", lambda: tmp_path / "none.so")
    assert "run `python -m microtome.dictionaries.kernels.build`" in native.reason.__wrapped__()


def test_a_library_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(native, "library", lambda: broken)
    monkeypatch.setattr(native, "_loaded", native._loaded.__wrapped__)
    assert "it does not load" in native.reason.__wrapped__()
