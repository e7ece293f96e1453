"""Dictionaries fitted anew for the card: what is told of them, and of which kinds."""

import pytest
import torch
from torch.nn.functional import normalize

from microtome.cli.refitting import kind_of, over_directions, truth_rows
from microtome.core.linear import Coordinates
from microtome.core.site import Site
from microtome.dictionaries.activation_functions import BatchTopK, ReLU
from microtome.dictionaries.sae import SAE
from microtome.evals.card import OWN
from microtome.evals.ground_truth import Estimate, Recovery

SITE = Site("resid_post.0")


def test_kinds_are_those_whose_sparsity_can_be_asked_for() -> None:
    assert kind_of(SAE(SITE, 4, 8, BatchTopK(2))) == "BatchTopK"
    assert kind_of(SAE(SITE, 4, 8, ReLU())) is None
    assert kind_of(Coordinates(SITE, 4)) is None


def test_what_was_recovered_stands_beside_chance() -> None:
    found = Recovery(*(Estimate(i / 10, i / 10 - 0.05, i / 10 + 0.05, i / 100) for i in range(7)))
    mcc, f1, shrinkage = truth_rows("TopK", found)
    assert (mcc.scores[OWN].found, mcc.scores["random"].found) == (found.mcc.found, found.mcc.chance)
    assert f1.scores[OWN].low == found.f1.low and shrinkage.best == "one"
    assert all(row.group == "structure" and "TopK" in row.about for row in (mcc, f1, shrinkage))


def test_directions_made_of_few_are_told_better_than_they_were_before(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = normalize(torch.randn(8, 16, generator=generator), dim=1)
    rows = torch.rand(256, 8, generator=generator) @ parts

    def missed(steps: int) -> float:
        monkeypatch.setattr("microtome.cli.refitting.META_STEPS", steps)
        made = over_directions(rows, 12, 4)
        return float((rows - made.decode(made.encode(rows))).square().sum())

    assert missed(30) < missed(1)
