"""The Triton kernels against dense formulas in double precision: on a GPU, and without one in Triton's interpreter.

Triton takes note of TRITON_INTERPRET when it is imported, so the interpreted half runs in a process of its own, which
`test_all_of_this_holds_in_the_interpreter` starts on this very file.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome.core.errors import Refusal
from microtome.core.fit import Adam, Autograd, fit
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.kernels import engine
from microtome.dictionaries.kernels.parts import Active, Extra, Rate, Weights
from microtome.dictionaries.kernels.triton_kernels import TritonKernels, interpreted, reason
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning")
INTERPRETED = interpreted()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
runs = pytest.mark.skipif(not TritonKernels.available(DEVICE), reason=f"no Triton programs here: {reason(DEVICE)}")
on_a_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
LARGER = [(300, 129, 5000, 33), (1024, 768, 16384, 32), (512, 2304, 65536, 64)]  # rows, d, n, k


def sizes(*toys: tuple[int, int, int, int]) -> pytest.MarkDecorator:
    """Of a problem: toys, which the interpreter manages, and what only a GPU does."""
    larger = [pytest.param(*size, marks=on_a_gpu) for size in LARGER]
    return pytest.mark.parametrize(("rows", "d", "n", "k"), [*toys, *larger])


to_search = sizes((4, 32, 128, 4), (7, 37, 301, 3), (3, 16, 20, 20))
to_move = sizes((11, 37, 30, 3))
NEAR = {"rtol": 1e-4, "atol": 2e-5}
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}


@pytest.mark.skipif(find_spec("triton") is None, reason="the package triton is not installed")
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
@pytest.mark.timeout(1200)
def test_all_of_this_holds_in_the_interpreter() -> None:
    asked = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", __file__]
    root = Path(__file__).parents[3]
    run = subprocess.run(asked, cwd=root, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-4000:] + run.stderr[-2000:]


def drawn(rows: int, d: int, n: int, seed: int = 0) -> tuple[Weights, Tensor]:
    g = torch.Generator().manual_seed(seed)
    encoder, decoder = (torch.nn.functional.normalize(torch.randn(n, d, generator=g), dim=1) for _ in range(2))
    weights = Weights(encoder, 0.1 * torch.randn(n, generator=g), decoder)
    return Weights(*(w.to(DEVICE) for w in weights)), torch.randn(rows, d, generator=g).to(DEVICE)


def small(kernels: TritonKernels) -> TritonKernels:
    """Tiles so small that a toy has many of them, with groups that hide things."""
    from microtome.dictionaries.kernels.triton_select import Tiles

    kernels.tiles = Tiles(rows=4 if INTERPRETED else 16, columns=32, depth=16, group=8, kept=2)
    return kernels


def dense(active: Active, n: int) -> Tensor:
    zeros = torch.zeros(len(active.values), n, dtype=torch.float64, device=active.values.device)
    return zeros.scatter_add(1, active.indices, active.values.double())


def pre_of(weights: Weights, x: Tensor) -> Tensor:
    return x.double() @ weights.W_enc.double().T + weights.b_enc.double()


def near(found: Tensor, expected: Tensor, **more: float) -> None:
    torch.testing.assert_close(found.double(), expected.double(), **NEAR | more)


@runs
@to_search
@pytest.mark.parametrize("tiles", ["usual", "small"])
def test_encoding_keeps_the_largest_of_each_row(rows: int, d: int, n: int, k: int, tiles: str) -> None:
    weights, x = drawn(rows, d, n)
    kernels = TritonKernels(weights, k)
    active = (small(kernels) if tiles == "small" else kernels).encode(x)
    pre = pre_of(weights, x)
    near(active.values.sort(1).values, pre.topk(k, 1).values.relu().sort(1).values)
    near(active.values, pre.gather(1, active.indices).relu())
    assert all(len(set(row)) == k for row in active.indices.tolist())


def crowd(weights: Weights, x: Tensor, tiles: int, several: int) -> None:
    """Latents of one group, and no others, point where x does: the largest of every row stand together."""
    towards = torch.nn.functional.normalize(x.mean(0), dim=0)
    for place in range(several):
        weights.W_enc[3 + tiles * place] = towards + 0.02 * weights.W_enc[3 + tiles * place]
        weights.b_enc[3 + tiles * place] = 8 + place


@runs
def test_what_stands_together_in_one_group_is_found_all_the_same() -> None:
    weights, x = drawn(5, 32, 512)
    crowd(weights, x, tiles=512 // 32, several=6)
    kernels = small(TritonKernels(weights, 5))
    near(kernels.encode(x).values.sort(1).values, pre_of(weights, x).topk(5, 1).values.sort(1).values)
    assert (dense(kernels.encode_batch(x)[0], 512) > 0).sum() == 5 * 5


@runs
@to_search
def test_a_batch_keeps_the_largest_of_all_its_rows(rows: int, d: int, n: int, k: int) -> None:
    weights, x = drawn(rows, d, n)
    x *= torch.linspace(0.2, 2, rows, device=x.device)[:, None]  # so that rows keep different numbers
    active, least = (small if n < 1000 else lambda kernels: kernels)(TritonKernels(weights, k)).encode_batch(x)
    pre = pre_of(weights, x).relu()
    expected = pre.flatten().kthvalue(rows * n - rows * k + 1).values
    near(least, expected)
    near(dense(active, n), pre * (pre >= expected - 1e-6))


@runs
@pytest.mark.parametrize("total", [1, 37, 4100])
@pytest.mark.parametrize("kind", ["spread", "ties", "extremes"])
def test_the_cth_largest_key_is_that_of_sorting(total: int, kind: str) -> None:
    from microtome.dictionaries.kernels.triton_select import least_of_all, least_of_rows

    g = torch.Generator().manual_seed(total)
    low, high = {"spread": (-(2**31), 2**31 - 1), "ties": (-2, 3), "extremes": (-1, 1)}[kind]
    c = total // 3 + 1
    keys = torch.randint(low, high, (2, total), generator=g, dtype=torch.int32).to(DEVICE)
    if kind == "extremes":
        keys = torch.where(keys < 0, -(2**31), 2**31 - 2).to(torch.int32)
    assert torch.equal(least_of_rows(keys, c), keys.kthvalue(total - c + 1).values)
    assert least_of_all(keys.view(-1), c) == keys.view(-1).kthvalue(2 * total - c + 1).values


@runs
@to_move
def test_comparing_adds_up_the_active_rows(rows: int, d: int, n: int, k: int) -> None:
    weights, target = drawn(rows, d, n)
    g = torch.Generator().manual_seed(1)
    values = torch.rand(rows, k, generator=g) * (torch.rand(rows, k, generator=g) < 0.8)
    active = Active(values.to(DEVICE), torch.randint(n, (rows, k), generator=g).to(DEVICE))
    error, squares, products = TritonKernels(weights, k).compare(target, active)
    expected = dense(active, n) @ weights.W_dec.double() - target.double()
    near(error, expected)
    near(squares, expected.pow(2).sum())
    near(products, (expected @ weights.W_dec.double().T).gather(1, active.indices), atol=1e-4)


@runs
@to_move
def test_gradients_are_those_of_the_dense_dictionary(rows: int, d: int, n: int, k: int) -> None:
    """Adam's first mean after one step from nothing is a tenth of the gradient."""
    weights, x = drawn(rows, d, n)
    leaves = [w.double().requires_grad_() for w in weights]
    kernels = small(TritonKernels(weights, k))
    active = kernels.encode(x)
    pre = x.double() @ leaves[0].T + leaves[1]
    codes = torch.zeros_like(pre).scatter(1, active.indices, pre.gather(1, active.indices).relu())
    loss = (codes @ leaves[2] - x).pow(2).sum()
    expected = torch.autograd.grad(loss, leaves)
    compared = kernels.compare(x, active)
    near(compared.squares, loss.detach())
    slopes = 2 * compared.products * (active.values > 0)
    kernels.update(x, 2 * compared.error, active, slopes, None, Rate(1, 1e-3, **ADAM))
    for name, gradient in zip(Weights._fields, expected, strict=True):
        near(10 * kernels.moments[name][0], gradient, atol=1e-5 * float(gradient.abs().max()))


@runs
@to_move
def test_an_update_is_adam_on_the_dense_gradients_then_unit_length(
    rows: int, d: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from microtome.dictionaries.kernels import triton_sparse

    monkeypatch.setattr(triton_sparse, "STRETCH", 16)
    weights, x = drawn(rows, d, n)
    weights.b_enc[5] = 20  # active in every row: more entries than are added up at once
    expected = [torch.nn.Parameter(w.double()) for w in weights]
    optimiser = torch.optim.Adam(expected, lr=1e-2, **ADAM)
    kernels = TritonKernels(weights, k)
    g = torch.Generator().manual_seed(2)
    for step in range(1, 3):
        active = kernels.encode(x)
        gradients = torch.randn(rows, k, generator=g).to(DEVICE) * (active.values > 0)
        error = torch.randn(rows, d, generator=g).to(DEVICE)
        extra = some_extra(weights, [3, n // 2, n - 1], g) if step > 1 else None
        slopes = dense(Active(gradients, active.indices), n).T
        given = Weights(slopes @ x.double(), slopes.sum(1), dense(active, n).T @ error.double())
        for parameter, gradient, more in zip(expected, given, extra[1:] if extra else [None] * 3, strict=True):
            parameter.grad = gradient if more is None else gradient.index_add(0, extra.which, more.double())
        fired = kernels.update(x, error, active, gradients, extra, Rate(step, 1e-2, **ADAM))
        assert torch.equal(fired, (dense(active, n) > 0).any(0))
        optimiser.step()
        with torch.no_grad():
            expected[2].copy_(torch.nn.functional.normalize(expected[2], dim=1))
        for found, parameter in zip(weights, expected, strict=True):
            near(found, parameter.detach(), atol=1e-4)
            parameter.data.copy_(found)  # Adam magnifies the rounding of gradients near zero: no step inherits it
    near(kernels.searched, weights.W_enc, rtol=2**-7)


def some_extra(weights: Weights, which: list[int], g: torch.Generator) -> Extra:
    there = torch.tensor(which, device=DEVICE)
    return Extra(there, *(torch.randn(w[there].shape, generator=g).to(DEVICE) for w in weights))


@runs
def test_a_fit_by_them_is_a_fit_by_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "fast_bfloat16", lambda device: False)  # dead latents too in full precision
    g = torch.Generator().manual_seed(4)
    data = [torch.randn(9, 16, generator=g).to(DEVICE) for _ in range(4)]

    def fitted(make: Callable) -> tuple[SAE, list[float]]:
        sae = SAE(Site("x"), 16, 40, TopK(3), generator=torch.Generator().manual_seed(3)).to(DEVICE)
        aux = Reconstruction() + AuxK(40, dead_after=17, k_aux=4).to(DEVICE)  # some are dead from the third step on
        return sae, [step.loss for step in fit(sae, data, aux, lr=3e-3, engine=make)]

    def in_triton(sae: SAE, objective: Reconstruction, adam: Adam) -> engine.SparseEngine:
        return engine.SparseEngine(sae, engine.task_of(objective), adam, TritonKernels)

    (one, losses), (other, expected) = fitted(in_triton), fitted(Autograd)
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, weight in one.state_dict().items():
        near(weight, other.state_dict()[name], atol=1e-3)


@runs
def test_the_same_step_gives_the_same_bits() -> None:
    def step() -> list[Tensor]:
        weights, x = drawn(5, 32, 40)
        kernels = small(TritonKernels(weights, 4))
        active = kernels.encode(x)
        compared = kernels.compare(x, active)
        kernels.update(x, compared.error, active, compared.products, None, Rate(1, 1e-3, **ADAM))
        return [*weights, compared.squares]

    assert all(map(torch.equal, step(), step()))


@runs
def test_inputs_that_are_no_numbers_stay_in_their_rows() -> None:
    weights, x = drawn(5, 32, 301)
    expected = small(TritonKernels(weights, 4)).encode(x).values
    x[[1, 3]] = torch.tensor([[math.nan], [-math.nan]], device=x.device)
    found = small(TritonKernels(weights, 4)).encode(x)
    assert found.values[[1, 3]].isnan().all() and (found.indices < 301).all() and (found.indices >= 0).all()
    others = [row for row in range(5) if row not in (1, 3)]
    near(found.values[others].sort(1).values, expected[others].sort(1).values)


@runs
def test_weights_in_another_precision_are_refused() -> None:
    weights, _ = drawn(1, 8, 32)
    with pytest.raises(Refusal, match=r"W_enc is torch.float64.*W_enc.float\(\)"):
        TritonKernels(Weights(*(w.double() for w in weights)), 2)


@runs
def test_weights_changed_from_outside_are_searched_after_a_reload() -> None:
    weights, x = drawn(3, 16, 301)
    kernels = small(TritonKernels(weights, 3))
    weights.W_enc.copy_(weights.W_enc.flip(0))
    kernels.reload()
    near(kernels.encode(x).values.sort(1).values, pre_of(weights, x).topk(3, 1).values.relu().sort(1).values)


@pytest.mark.skipif(INTERPRETED or torch.cuda.is_available(), reason="here they can be used")
def test_without_a_gpu_they_say_what_is_missing() -> None:
    assert not TritonKernels.available()
    weights = Weights(torch.eye(4), torch.zeros(4), torch.eye(4))
    with pytest.raises(Refusal, match=r"Triton kernels cannot be used: .*(CUDA device|not installed)"):
        TritonKernels(weights, 1)


@pytest.mark.skipif(INTERPRETED or find_spec("triton") is None, reason="Triton's compiler is not at hand")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.timeout(1200)
def test_every_program_compiles_for_a_gpu_that_is_not_here(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from microtome.dictionaries.kernels import triton_select, triton_sparse

    search = {"group": 64, "kept": 4}
    entries = dict(zip(("block_c", "block_d"), triton_select.tile_of_entries(80), strict=True))
    i1, i32, bf16 = "*i1", "*i32", "*bf16"
    tile = {"block_rows": 128, "block_n": 128, "block_d": 64} | search
    made = compiled(triton_select._propose, tile, capability, warps=8, keys=i32, x=bf16, w=bf16)
    assert "mma" in made.asm["ptx"]  # the tensor cores multiply
    compiled(triton_select._least_of_rows, {"block": 4096}, capability, keys=i32, least=i32)
    take = {"per_tile": 2, "block": 1024} | search
    compiled(triton_select._take, take, capability, keys=i32, least=i32, starts="*i64", columns="*i64", crowded=i1)
    for shift, bits in triton_select.DIGITS:
        digit = {"shift": shift, "bits": bits, "block": 4096}
        compiled(triton_select._count_digits, digit, capability, keys=i32, prefix="*i64", counts=i32)
    compiled(triton_select._score, entries, capability, warps=8, columns="*i64")
    entries["block_k"] = entries.pop("block_c")
    compiled(triton_sparse._compare, entries, capability, warps=8, indices="*i64")
    compiled(
        triton_sparse._update, {"block_e": 8, "block_d": 256}, capability, rows=i32, starts="*i64", turns="*i64",
        slots="*i64", searched=bf16, fired=i1, **dict.fromkeys(("lr", "beta1", "beta2", "inverse_spread", "eps"), "fp32"),
    )  # fmt: skip


def compiled(program, constants: dict[str, int], capability: int, warps: int = 4, **types: str):
    """A program made for a GPU: `types` of its arguments, where they are neither counts nor pointers to float32."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    usual = {name: "i32" for name in ("rows", "n", "d", "k", "c", "tiles", "width", "groups", "total")}
    kinds = {name: "*fp32" for name in program.arg_names} | usual | types | dict.fromkeys(constants, "constexpr")
    source = ASTSource(program, {name: kinds[name] for name in program.arg_names}, constants)
    return compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
