"""A floor counts what a dense product does, and the bytes of the tensors that a step cannot leave alone."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from microtome.dictionaries.kernels.parts import Weights
from microtome.dictionaries.kernels.roofline import Floor, comparing, encoder_product, encoding, floor, updating
from microtome.dictionaries.kernels.torch_kernels import TorchKernels

D, N, K, ROWS = 24, 500, 5, 37


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_encoders_product_is_counted_as_torch_counts_it(dtype: torch.dtype) -> None:
    x, weights = torch.zeros(ROWS, D, dtype=dtype), torch.zeros(N, D, dtype=dtype)
    with FlopCounterMode(display=False) as counted:
        torch.mm(x, weights.T)
    assert encoder_product(D, N, ROWS, dtype) == Floor(counted.get_total_flops(), x.nbytes + weights.nbytes)


def test_an_update_reads_and_writes_both_weights_and_their_moments() -> None:
    weights = Weights(torch.zeros(N, D), torch.zeros(N), torch.zeros(N, D))
    moments = TorchKernels(weights, K).moments
    stays = [*(w for w in weights if w.ndim > 1), *moments["W_enc"], *moments["W_dec"]]
    batch, copy = torch.zeros(ROWS, D), weights.W_enc.bfloat16()
    assert updating(D, N, K, ROWS).bytes == 2 * sum(t.nbytes for t in stays) + copy.nbytes + 2 * batch.nbytes


def test_with_every_latent_active_a_row_the_sparse_products_are_dense_ones() -> None:
    assert comparing(D, N, N, ROWS).flops == updating(D, N, N, ROWS).flops == 2 * encoder_product(D, N, ROWS).flops


def test_a_step_is_its_parts_and_takes_as_long_as_the_slower_of_two_things() -> None:
    whole = floor(D, N, K, ROWS)
    parts = encoding(D, N, K, ROWS), comparing(D, N, K, ROWS), updating(D, N, K, ROWS)
    assert whole == parts[0] + parts[1] + parts[2]
    assert whole.seconds(1.0, float("inf")) == whole.flops and whole.seconds(float("inf"), 1.0) == whole.bytes
