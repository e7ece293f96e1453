"""What is measured at a checkpoint is what the definitions say."""

import pytest
import torch
from torch import nn

from microtome.cli.checkpoint_measures import (
    COEFFICIENT,
    LENGTH,
    SQUARED,
    TextMeasures,
    Walk,
    coefficient,
    lengths,
    refuse_nonsense,
)
from microtome.core.errors import Refusal
from tests.models import zoo


def test_lengths_are_of_each_tensor_and_of_all() -> None:
    layer = nn.Linear(3, 2)
    found = lengths(dict(layer.named_parameters()))
    assert found[f"{LENGTH}/bias"] == pytest.approx(float(layer.bias.detach().norm()))
    assert found[SQUARED] == pytest.approx(sum(float(w.detach().square().sum()) for w in layer.parameters()))


def test_chains_on_a_model_of_text_are_measured_or_flagged() -> None:
    model = zoo.model("llama")
    windows = torch.randint(10, (6, 16))
    quiet, wild = Walk(chains=2, steps=6, burn=2, rate=1e-8), Walk(chains=2, steps=6, burn=2, rate=1e3)
    found = coefficient(model.module, windows, quiet)
    assert found.excess.shape == (2, 6) and found.excess.isfinite().all()
    unwell: dict[str, str] = {}
    row = TextMeasures(windows, ("loss", "coefficient"), wild, unwell)(model)
    assert row["loss"] > 0 and row[COEFFICIENT] != row[COEFFICIENT], "no number where chains are not healthy"
    assert list(unwell) == [model.name]


def test_walks_of_nothing_are_refused() -> None:
    with pytest.raises(Refusal, match="--rate is 0"):
        refuse_nonsense(Walk(rate=0.0))
    with pytest.raises(Refusal, match="--chains is 1"):
        refuse_nonsense(Walk(chains=1))
