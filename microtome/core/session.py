"""A live model behind a page: plain values in, plain values out, so that whoever asks needs no tensor."""

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Moved:
    """What some nodes of a graph did when others were changed, as columns: what each was, and by how much it moved.

    `predicted` is what the graph foretells, `measured` what the network did. The correlations of the two are None where
    there are too few nodes, or one of them is the same for all.
    """

    nodes: list[str]
    before: list[float]
    predicted: list[float]
    measured: list[float]
    pearson: float | None
    spearman: float | None


@dataclass(frozen=True)
class Answered:
    """What a change did to a graph's targets (in logits less their mean) and to components (in their activity)."""

    targets: Moved
    components: Moved


@runtime_checkable
class GraphSession(Protocol):
    """A model, a prompt and its attribution graph, ready to be intervened on."""

    def intervene(self, changes: Mapping[str, float], watch: Sequence[str], hold_attention: bool) -> Answered:
        """Let each node in `changes` write so many times as much (0 takes it away), and see what `watch` does.

        Nodes go by their names in graph.json. Attention may be held as it was on the prompt, as the graph takes it.
        Raises ValueError, in a sentence, where it cannot.
        """
        ...
