"""The study of truth runs in a small form; what was planted is found and what is as opposite is called ambiguous."""

from pathlib import Path

import torch

from microtome.studies.study import Setting
from microtome.studies.truth import Size, Truth, planted_answers, searched, sure_and_right
from microtome.toys.statements import World
from tests.studies.sums import Silent

TINY = Size(
    contrasts=3, questions=200, layers=1, world=World(things=6, d=16, heads=2, layers=2, neurons=16, steps=20),
    statements=120, erased=400, epochs=150, restarts=6,
)  # fmt: skip


def test_what_was_planted_is_found_and_the_rest_is_reported(tmp_path: Path) -> None:
    report = Truth(quick=TINY).run(Setting(tmp_path, quick=True), Silent())
    found = {c.name: c for c in report.claims}
    assert len(found) == len(report.claims) == 12
    for name in (
        "cosine with a planted direction at signal 2, whitened",
        "CCS on planted truth, the layer that is least right",
    ):
        assert found[name].ok
    assert found["with a distractor as strong, share of layers called ambiguous"].ok
    assert not found["CCS in a network, last layer, on things not learned from"].ok  # it was hardly taught


def test_directions_are_judged_on_the_other_questions(generator: torch.Generator) -> None:
    pairs, true, word = planted_answers(TINY, 0.0, generator)
    first = torch.arange(len(true)) < 100
    wrong = torch.where(first, true, ~true)  # labels of the second half turned: all that is found is wrong there
    found = searched("turned", pairs, wrong, word, TINY, generator, first)
    assert max(found.truth) <= 0.01
    assert all(max(each) <= 0.01 for each in found.beside.values())


def test_a_regression_of_noise_gives_one_half_to_what_is_true(generator: torch.Generator) -> None:
    x, label = torch.randn(4000, 5, generator=generator), torch.rand(4000, generator=generator) < 0.5
    assert abs(sure_and_right((x, label), (x.flip(0), label)) - 0.5) < 0.01
    told = x + 4 * label[:, None].float()
    assert sure_and_right((told, label), (told, label)) > 0.95
