"""One who asks: never the same question twice, never beyond the budget, once more where the answer was of no use."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from microtome.language.ask import Answer, Exchange, OffTopic, Prompt, Speaker, read_as
from microtome.language.budget import Budget
from microtome.language.kept import Kept

ATTEMPTS = 2
SECOND_TEMPERATURE = 0.7  # at 0 the same answer would come again

Form = TypeVar("Form")


@dataclass
class Asker:
    """A model, what it has answered before, and what may be spent. `kept` None keeps nothing (a rehearsal).

    `last` is the latest question with its answer.
    """

    speaker: Speaker
    budget: Budget
    kept: Kept | None = None
    last: Exchange | None = None

    def ask(self, prompt: Prompt) -> Answer:
        """The answer kept, or one asked for now. Raises BudgetReached and NoAnswer; what came before stays kept."""
        found = self.kept.find(self.speaker.name, prompt) if self.kept is not None else None
        if found is None:
            found = self._now(prompt)
        else:
            self.budget.recall()
        self.last = Exchange(prompt, found)
        return found

    def _now(self, prompt: Prompt) -> Answer:
        self.budget.refuse_beyond(prompt)
        answer = self.speaker.say(prompt)
        self.budget.charge(answer)
        if self.kept is not None:
            self.kept.put(self.speaker.name, prompt, answer)
        return answer

    def ask_for(self, prompt: Prompt, read: Callable[[str], Form | None], wanted: str) -> Form:
        """An answer in the form that `read` finds in it (None: not there), asked for at most twice.

        Raises OffTopic where it came neither time.
        """
        for attempt in range(ATTEMPTS):
            again = replace(prompt, attempt=attempt, temperature=SECOND_TEMPERATURE if attempt else prompt.temperature)
            answer = self.ask(again)
            try:
                return read_as(answer, read, wanted)
            except OffTopic:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError(ATTEMPTS)
