"""Parts that begin as inputs that occur: each active on one of them, or one for each neuron."""

import torch

from microtome.parameters.begin import Met
from microtome.parameters.occurring import FromInputs


def met(inputs: torch.Tensor, rows: int, generator: torch.Generator) -> Met:
    """Rows each of which is one of the inputs, at a size of its own and with either sign."""
    size = torch.rand(rows, 1, generator=generator) * 2 - 1
    x = inputs[torch.arange(rows) % len(inputs)] * size
    return Met(x, torch.randn(rows, 3, generator=generator))


def test_each_part_is_active_on_one_input_and_all_sum_to_the_weight_there(generator: torch.Generator) -> None:
    inputs, weight = torch.randn(4, 6, generator=generator), torch.randn(3, 6, generator=generator)
    made = FromInputs(small=0.0).factors(met(inputs, 80, generator), weight, 7, generator)
    active = (inputs @ made.read.T).abs() > 1e-4
    assert (active.sum(0) <= 1).all() and (active.sum(1) == 1).all()  # whatever the sign that a row came with
    torch.testing.assert_close(made.sum() @ inputs.T, weight @ inputs.T, rtol=1e-3, atol=1e-4)


def test_activations_begin_between_minus_one_and_one(generator: torch.Generator) -> None:
    inputs = 50 * torch.randn(4, 6, generator=generator)
    seen = met(inputs, 80, generator)
    h = seen.x @ FromInputs(small=0.0).factors(seen, torch.randn(3, 6), 4, generator).read.T
    torch.testing.assert_close(h.abs().amax(0), torch.ones(4))


def test_more_inputs_than_numbers_give_each_number_a_part(generator: torch.Generator) -> None:
    weight = torch.randn(2, 3, 5, generator=generator)
    seen = [met(torch.randn(12, 5, generator=generator), 120, generator) for _ in range(2)]
    both = Met(torch.stack([m.x for m in seen]), torch.stack([m.slope for m in seen]))
    made = FromInputs(small=0.0).factors(both, weight, 20, generator)
    assert ((made.read != 0).sum(-1) == torch.tensor([1] * 5 + [0] * 15)).all()
    torch.testing.assert_close(made.sum(), weight)


def test_seeds_choose_by_themselves(generator: torch.Generator) -> None:
    """Two inputs for the first seed, more than an input has numbers for the second."""
    seen = [met(torch.randn(n, 5, generator=generator), 120, generator) for n in (2, 12)]
    both = Met(torch.stack([m.x for m in seen]), torch.stack([m.slope for m in seen]))
    made = FromInputs(small=0.0).factors(both, torch.randn(2, 3, 5), 20, generator)
    assert (made.read.norm(dim=-1) > 1e-6).sum(-1).tolist() == [2, 5]
