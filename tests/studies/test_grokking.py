"""The study of grokking: training that resumes, the inside of a network as it is run, and all of it very small."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from microtome.dynamics.fourier import power
from microtome.parameters.spd import SPD
from microtome.store.records import Dynamics
from microtome.studies.grokking import PROFILE, Grokking, Size, Training, against_the_rest, inside, network, trained_on
from microtome.studies.study import Setting
from tests.studies.sums import Silent

TINY = Size(p=7, d=8, heads=2, neurons=12, share=0.5, steps=6, every=2, seeds=2, parts=SPD(parts=4, steps=2))


def test_training_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = Training(TINY, 3, tmp_path / "whole")
    assert list(whole) == [0, 2, 4, 6]
    assert list(Training(replace(TINY, steps=3), 3, tmp_path / "parts")) == [0, 2]
    rest = Training(TINY, 3, tmp_path / "parts")
    assert list(rest) == [2, 4, 6]
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), rest.model.parameters(), strict=True))


def test_the_inside_is_what_a_run_gives() -> None:
    model = network(TINY, 0)
    found = inside(model)
    torch.testing.assert_close(found.logits.flatten(0, 1), model(model.pairs())[:, -1])
    assert found.activations.shape == (7, 7, 12) and found.neuron_logits.shape == (7, 12)


def test_losses_are_cross_entropies_and_the_smallest_have_slopes() -> None:
    right = torch.tensor([1, 0])
    logits = torch.tensor([[1.0, 2.0, -1.0], [12.0, -6.0, -7.0]], requires_grad=True)
    wanted = torch.nn.functional.cross_entropy(logits.detach().double(), right, reduction="none")
    found = against_the_rest(logits, right)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)
    (slope,) = torch.autograd.grad(found[1], logits)
    assert slope[1, 1] > 0 and float(slope[1].sum()) == pytest.approx(0, abs=1e-6 * float(slope[1, 1]))


def test_a_share_of_the_pairs_is_trained_on() -> None:
    seen = trained_on(TINY, 0)
    assert seen.sum() == 24 and not torch.equal(seen, trained_on(TINY, 1))


def test_the_study_runs(tmp_path: Path) -> None:
    report = Grokking(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in report.claims}) == len(report.claims) == 13
    assert not next(c for c in report.claims if "phases" in c.name).ok  # so few steps do not grok
    kept = Dynamics.read(tmp_path / "seed-1")
    assert kept.steps == [0, 2, 4, 6] and not kept.phases
    embedding = network(TINY, 1).embed.detach()[:7]
    shown = [kept.curves[f"{PROFILE}/{k}"][0] for k in (1, 2, 3)]
    assert shown == pytest.approx(power(embedding).sqrt().tolist(), rel=1e-4)
