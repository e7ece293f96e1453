"""Progress tells how far, how fast and how long still, and nothing that it cannot know yet."""

import pytest

from microtome.cli import progress
from microtome.cli.progress import Plain, Stage, clock, short


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock whose one entry is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_quick_units_have_a_rate_and_slow_ones_a_time_each(passing: list[float]) -> None:
    quick, slow = Stage("harvest", 1000, "tokens"), Stage("train", 4, "dictionaries")
    quick.at(0), slow.at(0)
    passing[0] = 40.0
    assert str(quick.at(400)) == " 40%  400 of 1.0k tokens  10 tokens/s  1:00 left"
    assert str(slow.at(1)) == " 25%  1 of 4 dictionaries  0:40 each  2:00 left"


def test_the_first_news_says_nothing_of_the_pace(passing: list[float]) -> None:
    """What a resumed run finds done was done at another time."""
    passing[0] = 3.0
    assert str(Stage("fit", 100, "steps").at(50)) == " 50%  50 of 100 steps"


def test_plain_lines_come_seldom_and_end_with_the_time_taken(passing: list[float]) -> None:
    lines: list[str] = []
    with Plain(lines.append).stage("fit", 100, "steps") as advance:
        for passing[0] in range(11):
            advance(passing[0])
    assert [line.split()[:2] for line in lines] == [["fit", "5%"], ["fit", "10%"], ["fit", "10"]]
    assert lines[-1].endswith("10 steps in 0:10")


def test_numbers_and_times_are_short() -> None:
    assert [short(n) for n in (512, 2000, 2e6, 3e9)] == ["512", "2.0k", "2.0M", "3.0G"]
    assert [clock(s) for s in (75, 4000, 1e9)] == ["1:15", "1:06:40", "?"]
