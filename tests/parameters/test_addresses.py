"""Any weight has an address, and what cannot be decomposed is refused in a sentence."""

import pytest
import torch
from torch import nn

from microtome.core.errors import Refusal
from microtome.parameters.addresses import Address, find, oriented, put_back, weight_at


class Odd(nn.Module):
    """A layer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.act = nn.Embedding(6, 4), nn.LayerNorm(4), nn.ReLU()
        self.conv, self.line = nn.Conv2d(2, 3, 2), nn.Linear(4, 12)
        self.raw = nn.Parameter(torch.randn(5, 4))
        self.tied = self.raw
        self.grouped = nn.Conv2d(2, 4, 1, groups=2)


def test_patterns_find_matrices_and_one_name_of_what_is_tied() -> None:
    module = Odd()
    assert [a.name for a in find(module)] == ["raw", "embed.weight", "conv.weight", "line.weight"]
    assert find(module, "line") == find(module, "line.*") == (Address("line.weight"),)
    assert find(module, ["tied", "raw"]) == (Address("raw"),)


@pytest.mark.parametrize("name", ["embed.weight", "conv.weight", "line.weight", "raw"])
def test_a_weight_seen_as_a_matrix_goes_back(name: str) -> None:
    module = Odd()
    assert put_back(module, name, oriented(module, name)).equal(module.get_parameter(name))
    assert oriented(module, "embed.weight").shape == (4, 6) and oriented(module, "conv.weight").shape == (3, 8)


def test_blocks_and_biases() -> None:
    module = Odd()
    head = Address("line.weight", writes=(4, 8))
    assert weight_at(module, head).equal(module.line.weight[4:8])
    whole = weight_at(module, Address("line.weight", bias="line.bias"))
    assert whole.shape == (12, 5) and whole[:, 4].equal(module.line.bias)
    assert str(head) == "line.weight[out=4:8]"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lime", "no weight matches 'lime'"), ("act", "'act' has no weight of its own"),
        ("norm", "not a matrix"), ("grouped", "2 groups"), (Address("row"), "did you mean"),
        ([Address("line.weight"), Address("line.weight", writes=(0, 2))], "overlap"),
        (Address("line.weight", writes=(4, 99)), "4:99 of 12"),
        (Address("line.weight", reads=(0, 2), bias="line.bias"), "bias"),
    ],
)  # fmt: skip
def test_what_cannot_be_decomposed_is_refused(given, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        find(Odd(), given)


def test_two_parameters_over_the_same_memory_are_refused() -> None:
    module = Odd()
    module.line.weight = nn.Parameter(module.raw.data[:3])
    with pytest.raises(Refusal, match="share storage"):
        find(module, "line")
