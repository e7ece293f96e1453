"""What is asked of a language model and what it says: plain values, and the one method that a model must have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from microtome.core.errors import Refusal

BYTES_PER_TOKEN = 2.0  # at the least, of prose and of code: an estimate from it is seldom exceeded
TEMPLATE = 16  # tokens that a chat's own marks take
QUOTED = 80  # characters of an answer that an error repeats

Form = TypeVar("Form")


class NoAnswer(Refusal):
    """Nobody answered, or not in a way that can be read: the address, the key or the server is at fault."""


class OffTopic(Refusal):
    """An answer came, but not of the form that was asked for: the model refused, or talked of other things."""


@dataclass(frozen=True)
class Prompt:
    """One question. `most` bounds the tokens of its answer; `example` is an answer of the form that is wanted, as long
    as one may get, which a rehearsal gives in the model's place. `attempt` tells a question asked again from the first.
    """

    system: str
    text: str
    most: int
    example: str
    temperature: float = 0.0
    attempt: int = 0

    @property
    def tokens(self) -> int:
        """An upper estimate of the prompt's length, for models whose tokenizer is not here."""
        return estimated(self.system) + estimated(self.text) + TEMPLATE


@dataclass(frozen=True)
class Answer:
    """What was said, and what it cost: tokens read and tokens written, as the model counts them where it does."""

    text: str
    prompt_tokens: int
    answer_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of the question and the answer."""
        return self.prompt_tokens + self.answer_tokens


@runtime_checkable
class Speaker(Protocol):
    """A language model that can be asked. `name` says which: answers are kept under it."""

    @property
    def name(self) -> str:
        """What its answers are kept under."""
        ...

    def say(self, prompt: Prompt) -> Answer:
        """Answer. Raises NoAnswer where it cannot."""
        ...


@dataclass(frozen=True)
class Exchange:
    """A question with its answer, as it is shown to whoever asks why something is called what it is called."""

    prompt: Prompt
    answer: Answer


class Rehearsal:
    """Nobody: gives every prompt's own example, so that a dry run meets every prompt and counts its tokens."""

    name = "rehearsal"

    def say(self, prompt: Prompt) -> Answer:
        """An answer that the question itself brings, as an example."""
        return Answer(prompt.example, prompt.tokens, prompt.most)


def estimated(text: str) -> int:
    """About how many tokens a text is, where no tokenizer says."""
    return int(len(text.encode()) / BYTES_PER_TOKEN) + 1


def quoted(text: str) -> str:
    """The beginning of an answer, on one line."""
    line = " ".join(text.split())
    return repr(line if len(line) <= QUOTED else f"{line[:QUOTED]}…")


def read_as(answer: Answer, read: Callable[[str], Form | None], wanted: str) -> Form:
    """An answer in its form. Raises OffTopic, which quotes it and says what was wanted."""
    found = read(answer.text)
    if found is None:
        raise OffTopic(f"asked for {wanted}, the model said {quoted(answer.text)}; try another model")
    return found
