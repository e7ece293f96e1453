"""The masked forward pass against the one with the summed weights, for every kind of product."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from microtome.core.errors import Refusal
from microtome.interventions.masks import Masks, kept
from microtome.parameters.addresses import Address, find, weight_at
from microtome.parameters.decompose import Decomposition, of_seed
from microtome.parameters.decomposed import Decomposed, Factors
from microtome.toys import Superposition


class Mixed(nn.Module):
    """An embedding, linear layers, a raw weight used both ways, a fused weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fused = nn.Embedding(7, 4), nn.Linear(4, 9)
        self.raw, self.out = nn.Parameter(torch.randn(5, 9)), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.fused(self.embed(ids)).tanh()
        again = (x @ self.raw.mT).relu() @ self.raw
        return self.out(again[..., :4])


class Pictures(nn.Module):
    """A convolution with a stride and padding, and another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).mean((-1, -2))


def random_parts(module: nn.Module, addresses, parts: int = 6, lead: tuple[int, ...] = ()) -> Decomposed:
    made = {}
    for address in addresses:
        out, inside = weight_at(module, address).shape[-2:]
        made[address] = Factors(torch.randn(*lead, parts, inside), torch.randn(*lead, parts, out))
    return Decomposed(module, addresses, made)


FUSED = [Address("fused.weight", writes=(0, 3)), Address("fused.weight", writes=(3, 6))]
CASES = {
    "every weight": (Mixed, "*"), "two of three blocks": (Mixed, FUSED), "a block of columns": (Mixed, Address("fused.weight", reads=(1, 3))),
    "a bias as a column": (Mixed, Address("out.weight", bias="out.bias")), "convolutions": (Pictures, "*"),
}  # fmt: skip


def case(name: str) -> tuple[Decomposed, Tensor]:
    make, where = CASES[name]
    module = make()
    x = torch.randint(7, (3, 2)) if make is Mixed else torch.randn(3, 2, 6, 6)
    return random_parts(module, find(module, where)), x


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_masks_of_ones_are_the_network(name: str) -> None:
    learned, x = case(name)
    look = learned.look(x)
    torch.testing.assert_close(look.output, learned.module(x))
    torch.testing.assert_close(learned.run(x, kept(look.activation)), look.output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_masked_pass_is_a_call_with_the_summed_weights(name: str) -> None:
    learned, x = case(name)
    one = {n: torch.rand(6) for n in learned.names}
    look = learned.look(x)
    for rest in (True, False):
        at_rest = {n: h.new_full((*h.shape[:-1], 1), float(rest)) for n, h in look.activation.items()}
        spread = {n: one[n].expand_as(h) for n, h in look.activation.items()}
        weights = Decomposition(learned, (0.0,), 0).weights(one, rest=rest)
        expected = functional_call(learned.module, weights, (x,))
        torch.testing.assert_close(learned.run(x, Masks(spread, at_rest)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_parts_and_rest_sum_to_the_weight_biases_included(name: str) -> None:
    learned, _ = case(name)
    for i, address in enumerate(learned.addresses):
        torch.testing.assert_close(learned.of(i).sum() + learned.rests()[i], weight_at(learned.module, address))
    for key, weight in Decomposition(learned, (0.0,), 0).weights({}).items():
        torch.testing.assert_close(weight, learned.module.get_parameter(key))


@torch.no_grad()
def test_seeds_side_by_side_are_seeds_one_by_one(generator: torch.Generator) -> None:
    toy = Superposition(5, 2, generator=generator, seeds=3).untied()
    learned = random_parts(toy, find(toy, ["encoder", "decoder"]), lead=(3,))
    x = torch.rand(3, 4, 5)
    look = learned.look(x)
    masks = Masks({n: torch.rand_like(h) for n, h in look.activation.items()})
    together = learned.run(x, masks)
    for i in range(3):
        alone = of_seed(learned, toy.one(i), i)
        some = Masks({n: m[i] for n, m in masks.parts.items()})
        torch.testing.assert_close(alone.run(x[i], some), together[i])
        torch.testing.assert_close(alone.look(x[i]).output, look.output[i])


def test_a_weight_that_escapes_is_refused() -> None:
    class Escapes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.idle = nn.Parameter(torch.eye(2)), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return (x[..., None] * self.w).sum(-2)

    module, x = Escapes(), torch.ones(3, 2)
    with pytest.raises(Refusal, match="no product that is known"):
        random_parts(module, find(module, "w")).look(x)
    with pytest.raises(Refusal, match="nothing was multiplied by idle.weight"):
        random_parts(module, find(module, "idle")).look(x)
