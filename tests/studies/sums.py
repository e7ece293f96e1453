"""A study that takes no time, and one who watches it in silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from microtome.notebook.page import Heading, Sentence, Table
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, about


class Silent:
    """Nobody watches."""

    def say(self, words: str) -> None:
        pass

    @contextmanager
    def stage(self, name: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
        yield lambda done: None


class Sums(Study):
    name, paper, question = "sums", "Nobody <1900>, On sums", "Is one and one two?"

    def __init__(self, found: float = 2.0):
        self.found = found

    def run(self, setting: Setting, watch: Watch) -> Report:
        watch.say("adding")
        chart = Chart("Sums & more", "x", "y", [Series("one", [1.0, 10.0], [2.0, 3.0])])
        pieces = (Heading("How"), Sentence("By `adding`."), chart, Table(("a", "b"), [["1", "<b>"]]))
        return Report((about("one and one", 2.0, self.found, tolerance=0.1, source="arithmetic"),), pieces)
