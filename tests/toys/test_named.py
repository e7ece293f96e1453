"""The toys by name: each computes what it is meant to, and names weights that can be taken apart."""

from typing import cast

import pytest
import torch

from microtome.core.errors import Absent, Refusal
from microtome.parameters.addresses import find
from microtome.toys import named
from microtome.toys.named import CASES, AtEquals, toy
from microtome.toys.toy import Toy


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_it_computes_what_it_is_meant_to(name: str, generator: torch.Generator) -> None:
    try:
        case = toy(name)
    except Absent as absent:
        pytest.skip(str(absent))
    x = case.data.draw(500, generator)
    assert x.shape == (500, len(case.inputs)) and find(case.module, case.sites)
    if isinstance(case.module, AtEquals):
        assert (case.module(x).argmax(-1) == x.sum(-1) % named.MODULUS).float().mean() > 0.99
        return
    module = cast(Toy, case.module)
    target, made = module.target(x), module(x)
    assert (made - target).pow(2).mean() < 0.3 * target.pow(2).mean()


def test_what_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(Refusal, match="did you mean 'superposition-5-2'"):
        toy("superposition-5-3")
    monkeypatch.setattr(named, "TRAINED", tmp_path)
    with pytest.raises(Absent, match="python scripts/train_toys.py superposition-40-10"):
        toy("superposition-40-10")


def test_what_ships_is_small() -> None:
    assert sum(path.stat().st_size for path in named.TRAINED.iterdir()) < 3_000_000
