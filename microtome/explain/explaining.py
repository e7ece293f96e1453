"""From components to notes: explain each, test the sentence by every scorer asked for, and look for counter-examples.

A component whose answers are of no use is left out with the reason; the work on all others stands. What is asked of a
language model is kept by the one who asks, so that the same call goes on where a stop cut it off.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np

from microtome.core.errors import Refusal
from microtome.explain.counter_examples import CounterExamples, counter_examples
from microtome.explain.detection import CHANCE, detection, foretold
from microtome.explain.embedding import Embedder, embedding
from microtome.explain.evidence import THRESHOLD, strongest
from microtome.explain.evidence import draw as draw_tokens
from microtome.explain.explainers import Explains, Said
from microtome.explain.fuzzing import fuzzing
from microtome.explain.grades import Grade
from microtome.explain.intruder import FarthestPicker, Picker, intruder
from microtome.explain.judges import RuleJudge
from microtome.explain.passages import Drawn, Passages, draw
from microtome.explain.prompts import marked
from microtome.explain.rules import MOST, Explainer, best_token_rule
from microtome.explain.simulation import simulation
from microtome.language.ask import OffTopic
from microtome.store.catalog import Column
from microtome.store.notes import Explanation

VERSION = 1
PASSAGES = 20  # of each kind that a sentence is tested on
USELESS = 5  # components left out, with none explained before, after which the model is given up

Scorer = Callable[[Said, Drawn, np.random.Generator], Grade]


@dataclass(frozen=True)
class LeftOut:
    """A component that has no note, and why."""

    component: int
    reason: str


@dataclass(frozen=True)
class Explaining:
    """An explainer with the scorers its sentences are tested by; detection always comes first and is the note's score.

    `most` is the number of passages of each kind (firing, silent, strongest, blind) that a sentence is tested on.
    """

    rules: Explainer
    explains: Explains
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    most: int = PASSAGES

    def explain(self, columns: Iterator[tuple[int, Column]]) -> Iterator[Explanation | LeftOut]:
        """One note or one reason for each. Raises OffTopic where the first few answers are all of no use."""
        useless, helped, why = 0, False, ""
        for component, column in columns:
            try:
                one = self.note(component, column)
                helped |= isinstance(one, Explanation)
            except OffTopic as error:
                useless, why = useless + 1, str(error)
                one = LeftOut(component, why)
            yield one
            if useless >= USELESS and not helped:
                raise OffTopic(f"none of the first {useless} components could be explained: {why}")

    def note(self, component: int, column: Column) -> Explanation | LeftOut:
        drawn = self.drawn(component, column)
        said = self.explains.explain(component, column) if drawn.enough else None
        if said is None:
            return LeftOut(component, "it fires too seldom, or is too seldom silent, to be tested")
        told = foretold(said.judge, drawn)
        first = detection(told, drawn, self.drawing(component, "detection"))
        grades = [first, *(f(said, drawn, self.drawing(component, name)) for name, f in self.scorers.items())]
        by_token = foretold(self.token_judge(component, column), drawn)
        baseline = detection(by_token, drawn, self.drawing(component, "detection"))
        return Explanation(
            component=component, method=self.explains.name, text=said.text, score=first.value, low=first.low,
            high=first.high, chance=CHANCE, baseline=baseline.value, positives=len(drawn.firing),
            negatives=len(drawn.silent), evidence=self.record(said, grades, drawn, counter_examples(told, drawn)),
        )  # fmt: skip

    def drawn(self, component: int, column: Column) -> Drawn:
        """What sentences about this component are tested on."""
        generator = np.random.default_rng([self.rules.seed, component, 3])
        return draw(column, self.rules.proposal, self.rules.scoring, self.most, generator)

    def drawing(self, component: int, scorer: str) -> np.random.Generator:
        """Each scorer draws for itself, so that which others there are changes nothing."""
        return np.random.default_rng([self.rules.seed, component, 4, crc32(scorer.encode())])

    def token_judge(self, component: int, column: Column) -> RuleJudge:
        """The baseline: the best rule over the token alone, proposed from the same text."""
        threshold = THRESHOLD * strongest(column, self.rules.proposal)
        generator = np.random.default_rng([self.rules.seed, component, 0])
        seen = draw_tokens(column, self.rules.proposal, threshold, MOST, generator)
        return RuleJudge(best_token_rule(self.rules.reading, seen), self.rules.reading)

    def record(self, said: Said, grades: Sequence[Grade], drawn: Drawn, against: CounterExamples) -> dict:
        return {
            "version": VERSION, "seed": self.rules.seed, "unit": "passages", "threshold": drawn.threshold,
            "grades": {grade.scorer: grade.words() for grade in grades},
            "foretold_but_silent": self.quoted(against.silent, drawn.threshold),
            "fires_but_not_foretold": self.quoted(against.missed, drawn.threshold), **said.record,
        }  # fmt: skip

    def quoted(self, passages: Passages, threshold: float) -> list[str]:
        return marked(passages, passages.active > threshold, self.rules.reading.vocabulary)


def scorers(
    names: Sequence[str], embedder: Embedder, vocabulary: Sequence[str], explains: Explains
) -> dict[str, Scorer]:
    """Scorers by their names. Intruders are picked by the explainer's model, or by the embedder where it has none."""
    picker: Picker = explains.picker or FarthestPicker(embedder, list(vocabulary))
    known: dict[str, Scorer] = {
        "fuzzing": lambda said, drawn, generator: fuzzing(said.judge, drawn, generator),
        "simulation": lambda said, drawn, generator: simulation(said.judge, drawn, generator),
        "embedding": lambda said, drawn, generator: embedding(said.text, drawn, embedder, vocabulary, generator),
        "intruder": lambda said, drawn, generator: intruder(picker, drawn, generator),
    }
    wrong = [name for name in names if name not in known and name != "detection"]
    if wrong:
        raise Refusal(f"no scorer {wrong[0]!r}; there are: detection (always), {', '.join(known)}")
    return {name: known[name] for name in known if name in names}
