"""Who says what a component means: the rule explainer, or a language model that is shown passages on which it fires.

An explainer sees the proposal part of the text alone. What it says comes with a judge who has read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from microtome.explain.intruder import Picker
from microtome.explain.judges import Judge, RuleJudge
from microtome.explain.model_judge import ModelJudge, ModelPicker
from microtome.explain.passages import FEWEST, Passages, shown
from microtome.explain.prompts import explaining, sentence_in
from microtome.explain.rules import Explainer
from microtome.explain.sentences import sentence
from microtome.language.asker import Asker
from microtome.store.catalog import Column

SHOWN = 10  # passages: more add tokens faster than they add to the scores


@dataclass(frozen=True)
class Said:
    """A sentence about a component, who has read it, and, in plain values, where it comes from."""

    text: str
    judge: Judge
    record: Mapping[str, object]


@runtime_checkable
class Explains(Protocol):
    """`name` is the method's, under which explanations are noted; `picker` finds intruders, None where it cannot."""

    @property
    def name(self) -> str: ...

    @property
    def picker(self) -> Picker | None: ...

    def explain(self, component: int, column: Column) -> Said | None:
        """A sentence, or None where the component fires too seldom."""
        ...


@dataclass(frozen=True)
class ByRules:
    """The rule that the rule explainer proposes; nothing is asked and nothing spent."""

    rules: Explainer
    name: str = "rule, by passages"
    picker: Picker | None = None

    def explain(self, component: int, column: Column) -> Said | None:
        found = next(self.rules.propose(component, column), None)
        if found is None:
            return None
        conditions = [self.rules.supported(condition, found.seen) for condition in found.rule.conditions]
        text = sentence(found.rule, self.rules.reading.vocabulary)
        return Said(text, RuleJudge(found.rule, self.rules.reading), {"conditions": conditions})


@dataclass(frozen=True)
class ByModel:
    """What a language model says when it is shown passages of the proposal part, their active tokens marked."""

    asker: Asker
    rules: Explainer
    examples: int = SHOWN

    @property
    def name(self) -> str:
        return self.asker.speaker.name

    @property
    def picker(self) -> Picker:
        return ModelPicker(self.asker, self.rules.reading.vocabulary)

    def explain(self, component: int, column: Column) -> Said | None:
        """Raises OffTopic where the model says nothing that could be an explanation."""
        passages = self.passages(component, column)
        if len(passages) < FEWEST:
            return None
        prompt = explaining(passages, self.rules.reading.vocabulary)
        text = self.asker.ask_for(prompt, sentence_in, "an explanation")
        last = self.asker.last
        assert last is not None
        judge = ModelJudge(self.asker, text, self.rules.reading.vocabulary, self.rules.seed)
        record = {"model": self.name, "prompt": last.prompt.text, "answer": last.answer.text}
        return Said(text, judge, record)

    def passages(self, component: int, column: Column) -> Passages:
        """What the model is shown."""
        generator = np.random.default_rng([self.rules.seed, component, 2])
        return shown(column, self.rules.proposal, self.examples, generator)
