"""A live model behind a page: plain values in, plain values out, so that whoever asks needs no tensor."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Firing:
    """What fired on a text. Row t of `components` and `values` belongs to `tokens[t]`, strongest first."""

    tokens: list[str]
    components: list[list[int]]
    values: list[list[float]]


@runtime_checkable
class Session(Protocol):
    """A model and one of its dictionaries, ready to be asked."""

    def fire(self, text: str, top: int) -> Firing:
        """The `top` strongest components on each token of `text`. Raises ValueError, in a sentence, where it cannot."""
        ...

    def activity(self, text: str, component: int) -> tuple[list[str], list[float]]:
        """The tokens of `text`, and how strongly one component fires on each."""
        ...
