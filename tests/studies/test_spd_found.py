"""What counts as solved, and which beginning is kept."""

import json
from dataclasses import asdict, replace

import pytest

from microtome.parameters.matching import Columns
from microtome.studies.spd_found import Apart, Found


def found(loss: float, lengths: float = 1.0) -> Found:
    whole = Columns(1.0, lengths, (0.01, 0.02))
    counts = {"encoder": 2, "decoder": 2, "between": 2}
    return Found(whole, whole, {"encoder": 0, "decoder": 0}, counts, [[1.0, 0.0], [0.0, 1.0]], loss)


def test_the_beginning_of_least_loss_is_chosen_and_nothing_else_is_asked() -> None:
    apart = Apart([[found(0.2), found(0.1, lengths=0.5)], [found(0.1), found(0.3)]], 1.0)
    assert [f.solved for f in apart.chosen] == [False, True] and len(apart.all) == 4
    assert Apart.read(json.loads(json.dumps(apart.plain()))) == apart


@pytest.mark.parametrize(
    "change",
    [
        {"encoder": Columns(0.98, 1.0, (0.01, 0.02))},
        {"encoder": Columns(1.0, 1.03, (0.01, 0.02))},
        {"decoder": Columns(1.0, 1.0, (0.01, 0.2))},
        {"errors": {"encoder": 0, "decoder": 1}},
        {"alive": {"encoder": 2, "decoder": 3}},
    ],
)
def test_one_thing_amiss_is_not_solved(change: dict) -> None:
    assert found(0.0).solved and not replace(found(0.0), **change).solved
    assert Found.read(asdict(found(0.0))) == found(0.0)
