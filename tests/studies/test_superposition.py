"""The study of superposition runs, and counts named shapes and border cells as it says."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from microtome.studies.drawing import Arrows, Tiles
from microtome.studies.study import Setting, conduct
from microtome.studies.superposition import Diagram, Size, Superposed, Sweep
from tests.studies.sums import Silent

TINY = Size(6, 3, (1.5, 2.5, 4.0), rows=32, steps=10, cells=4, searched=5)


def test_the_study_runs_and_draws(tmp_path: Path) -> None:
    result = conduct(Superposed(quick=TINY), Setting(tmp_path, quick=True), Silent())
    assert len({c.name for c in result.claims}) == len(result.claims) == 4
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 4 and "in superposition" in page


def test_shares_near_a_shape_are_counted_where_two_features_share() -> None:
    shares = [torch.tensor([0.9, 0.98]), torch.tensor([0.5, 0.51, 0.45]), torch.tensor([0.3])]
    swept = Sweep((1.2, 2.0, 9.0), [0.98, 0.52, 0.2], shares)
    assert swept.sticky() == [1]
    assert swept.named([1]) == pytest.approx(2 / 3) and swept.named([0, 2]) == pytest.approx(1 / 3)
    spans = 0.065 + 3 * 0.04  # .355 to .42, and three shapes apart from others
    assert swept.smooth() == pytest.approx(spans / 0.68, abs=1e-3)


def test_diagrams_agree_as_far_as_the_worse_of_both_ways() -> None:
    one = torch.zeros(4, 8, dtype=torch.long)
    one[:, 4:] = 1
    spotted = one.clone()
    spotted[0, 0] = 2
    assert Diagram(2, one, one).agreement() == 1.0
    assert Diagram(2, spotted, one).agreement() == Diagram(2, one, spotted).agreement() == pytest.approx(8 / 11)


def test_drawings_are_well_formed_and_hold_everything() -> None:
    arrows = Arrows("Five & more", [("one <panel>", [(1.0, 0.0), (0.0, -1.0)]), ("two", [(0.5, 0.5)])])
    root = ElementTree.fromstring(arrows.svg())
    assert len(list(root.iter("circle"))) == 3 and "one <panel>" in "".join(root.itertext())
    tiles = Tiles("Phases", "x", "y", ("a", "b<"), [("found", [[0, 1], [1, 1], [0, 0]])])
    root = ElementTree.fromstring(tiles.svg())
    assert len(list(root.iter("rect"))) == 6 + 2
    assert [t.text for t in root.iter("title")].count("b<") == 3
