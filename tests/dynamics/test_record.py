"""Curves as a record: what is no number is left open, and reading gives what was written."""

import math
from pathlib import Path

from microtome.dynamics.record import record
from microtome.dynamics.series import Curves
from microtome.store.records import Dynamics, Stretch


def test_curves_are_kept_with_their_gaps(tmp_path: Path) -> None:
    curves = Curves.of({0: {"loss": 2.0, "size/1": math.inf}, 10: {"loss": 1 / 3}})
    made = record(curves, "a toy", units={"loss": "nats"}, phases=[Stretch(name="first", first=0, last=10)])
    made.write(tmp_path)
    assert Dynamics.read(tmp_path) == made
    assert made.steps == [0, 10]
    assert made.curves == {"loss": [2.0, 0.333333], "size/1": [None, None]}
