"""Where parts begin: exact sums, and features that come singly found at once."""

import pytest
import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.parameters.addresses import Address, find
from microtome.parameters.begin import Drawn, FromGradients, FromRows, Met, begun, meetings
from microtome.parameters.matching import columns
from microtome.toys import Superposition


@pytest.mark.parametrize("begin", [Drawn(), FromRows()])
@pytest.mark.parametrize("parts", [6, 12])
def test_parts_sum_to_the_weight_from_the_start(begin, parts: int, generator: torch.Generator) -> None:
    weight = torch.randn(2, 4, 6)
    met = Met(torch.randn(2, 30, 6), torch.randn(2, 30, 4))
    torch.testing.assert_close(begin.factors(met, weight, parts, generator).sum(), weight, rtol=1e-3, atol=1e-4)


def test_a_rows_gradient_in_a_weight_is_what_it_met(generator: torch.Generator) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    for address, met in meetings(module, find(module), x, ()).items():
        weight = module.get_parameter(address.name)
        (expected,) = torch.autograd.grad(module(x).pow(2).sum() / 2, weight)
        torch.testing.assert_close(torch.einsum("ro,ri->oi", met.slope, met.x), expected)


def test_single_features_are_found_before_anything_is_learnt(generator: torch.Generator) -> None:
    """A pentagon, whose features come one at a time: its columns are its commonest gradients."""
    turns = torch.arange(5) * 2 * torch.pi / 5
    toy = Superposition(5, 2, generator=generator, biased=True)
    toy.encoder.data = torch.stack((turns.cos(), turns.sin()))
    toy.bias.data -= 0.31
    toy = toy.untied()
    x = torch.eye(5).repeat(8, 1) * torch.rand(40, 1).add(0.1)
    size = dict.fromkeys(find(toy, ["encoder", "decoder"]), 9)
    learned = begun(toy, list(size), x, size, FromGradients(small=0.0, shift=0.0), generator)
    for i, weight in enumerate((toy.encoder, toy.decoder.mT)):
        factors = learned.of(i)
        parts = factors.write[:, :, None] * factors.read[:, None]
        assert columns(parts if i == 0 else parts.mT, weight.detach()).worst < 1e-4
    torch.testing.assert_close(learned.of(0).sum(), toy.encoder.detach(), rtol=1e-4, atol=1e-4)


def test_no_parts_are_refused(generator: torch.Generator) -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(Refusal, match="0 parts"):
        begun(module, [Address("weight")], torch.rand(4, 3), {Address("weight"): 0}, Drawn(), generator)
