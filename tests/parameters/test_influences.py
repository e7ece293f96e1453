"""Influences of parts upon parts: on linear ways they add up, and other weights that were taken apart are no way."""

import pytest
import torch
from torch import Tensor, nn

from microtome.core.errors import NoSuchComponent, Refusal
from microtome.parameters.addresses import find
from microtome.parameters.decompose import decompose
from microtome.parameters.decomposed import Decomposed
from microtome.parameters.gates import HingeGates
from microtome.parameters.influences import influences
from microtome.parameters.source import Given
from microtome.parameters.svd import SVD
from microtome.toys import Superposition


class Stream(nn.Module):
    """Three layers on a residual stream, the middle one not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        r = x + self.a(x)
        r = r + self.b(r).relu()
        return r + self.c(r)


def taken_apart(module: nn.Module, sites: str | list[str] = "*") -> Decomposed:
    return decompose(module, Given(torch.randn(8, 4)), sites, method=SVD(), seeds=1).parts


def test_parts_residual_and_bias_add_up_to_the_activation() -> None:
    module, x = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), torch.randn(5, 4)
    learned = taken_apart(module)
    came = influences(learned, x, "0.weight", "1.weight").sum(-1).T
    from_bias = module[0].bias @ learned.of(1).read.T
    torch.testing.assert_close(came + from_bias, learned.look(x).activation["1.weight"])


def test_other_weights_that_were_taken_apart_are_no_way_and_those_that_were_not_are() -> None:
    module, x = Stream(), torch.randn(5, 4)
    learned = taken_apart(module, ["a.weight", "b.weight", "c.weight"])
    h = learned.look(x).activation["a.weight"]
    direct = torch.einsum("tc,sc,rs->trs", learned.of(2).read, learned.of(0).write, h)
    torch.testing.assert_close(influences(learned, x, "a.weight", "c.weight"), direct)
    fewer = taken_apart(module, ["a.weight", "c.weight"])
    slope = torch.eye(4) + module.b.weight.T * ((x + module.a(x)) @ module.b.weight.T + module.b.bias > 0)[:, None]
    through = torch.einsum("rs,sc,rcd,td->trs", h, fewer.of(0).write, slope, fewer.of(1).read)
    torch.testing.assert_close(influences(fewer, x, "a.weight", "c.weight"), through, rtol=1e-4, atol=1e-5)


def test_what_is_not_important_has_no_influence() -> None:
    learned, x = taken_apart(Stream()), torch.randn(5, 4)
    learned.with_gates(HingeGates(offset=-1e6), torch.Generator())
    assert not influences(learned, x, "a.weight", "c.weight").any()


def test_backward_ways_and_unknown_weights_are_refused(generator: torch.Generator) -> None:
    learned, x = taken_apart(Stream()), torch.randn(5, 4)
    with pytest.raises(Refusal, match="nothing leads from c.weight to a.weight"):
        influences(learned, x, "c.weight", "a.weight")
    with pytest.raises(NoSuchComponent, match="there are: a.weight"):
        influences(learned, x, "d.weight", "a.weight")
    many = Superposition(4, 3, generator=generator, seeds=2).untied()
    both = SVD().learn(many, find(many, ["encoder", "decoder"]), Given(x), (2,), generator).parts
    with pytest.raises(Refusal, match="several seeds"):
        influences(both, x, "encoder", "decoder")
