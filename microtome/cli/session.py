"""A live model behind the browser's pages, with a dictionary or with a graph: all in plain values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch

from microtome.circuits.graph_files import numbers_of
from microtome.circuits.graph_interventions import Reaction, held_attention, react
from microtome.circuits.replacement import FEATURE, TARGET
from microtome.cli.prompt_graph import Asked, PromptGraph, known
from microtome.core.codes import Codes
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.session import Answered, Firing, GraphSession, Moved, Session
from microtome.data.windows import pieces
from microtome.dictionaries.files import load_dictionary
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.records import Run


class LiveSession:
    """Answers `core.session.Session` for one run."""

    def __init__(self, model: HookedModel, dictionary: Dictionary):
        self.model, self.dictionary = model, dictionary

    @torch.no_grad()
    def _codes(self, text: str) -> tuple[list[str], Codes]:
        inputs = cast(Tokens, self.model.inputs(text))
        most = self.model.context
        if most is not None and inputs.ids.shape[1] > most:
            raise Refusal(f"the text has {inputs.ids.shape[1]} tokens, and the model takes {most}; give a shorter one")
        trace = self.model.run(inputs, read=self.dictionary.reads)
        tokens = pieces(self.model.tokenizer, inputs.ids[0].tolist())
        return tokens, trace.codes(self.dictionary)

    def fire(self, text: str, top: int) -> Firing:
        tokens, codes = self._codes(text)
        best = codes.top(top)
        order = best.values[0].argsort(-1, descending=True)
        values, components = (x[0].gather(-1, order).tolist() for x in (best.values, best.indices))
        kept = [
            [(c, v) for c, v in zip(cs, vs, strict=True) if v > 0] for cs, vs in zip(components, values, strict=True)
        ]
        return Firing(tokens, [[c for c, _ in row] for row in kept], [[v for _, v in row] for row in kept])

    def activity(self, text: str, component: int) -> tuple[list[str], list[float]]:
        tokens, codes = self._codes(text)
        return tokens, codes.of(component)[0].tolist()


class LiveGraph:
    """Answers `core.session.GraphSession` for one graph run: the graph is built again, whole, beside its model."""

    def __init__(self, built: PromptGraph, file: Path):
        """`file` is the graph.json whose names of nodes are asked about."""
        self.built, self.numbers = built, numbers_of(file, built.graph)
        self.names = {number: name for name, number in self.numbers.items()}

    def intervene(self, changes: Mapping[str, float], watch: Sequence[str], hold_attention: bool) -> Answered:
        change = {self.number(name): by for name, by in changes.items() if by != 1.0}
        if not change:
            raise Refusal("every node writes as much as before; take one away or scale it by another number than 1")
        nodes = self.built.graph.nodes
        asked = dict.fromkeys(self.number(name) for name in watch)
        watched = [n for n in asked if n not in change and nodes[n].kind in (FEATURE, TARGET)]
        if not watched:
            raise Refusal("no node is left to watch; show a target or another component")
        built = self.built
        hold = held_attention(built.replacement) if hold_attention else []
        found = react(built.model, built.replacement, built.graph, built.targets, change, watched, hold=hold)
        targets, components = (found.among([nodes[n].kind == k for n in watched]) for k in (TARGET, FEATURE))
        return Answered(self.moved(targets), self.moved(components))

    def number(self, name: str) -> int:
        if name not in self.numbers:
            raise Refusal(f"graph.json has no node {name!r}; choose one of those that the page shows")
        return self.numbers[name]

    def moved(self, found: Reaction) -> Moved:
        columns = (found.before.tolist(), found.predicted.tolist(), found.measured.tolist())
        return Moved([self.names[n] for n in found.nodes], *columns, known(found.pearson), known(found.spearman))


def open_session(folder: Path) -> Session | GraphSession:
    """The session of a run folder: its model with its dictionary, or with its graph."""
    run = Run.read(folder)
    if run.command == "graph":
        return LiveGraph(PromptGraph.build(run.model, Asked.of(run.arguments)), folder / "graph.json")
    return LiveSession(load(run.model), load_dictionary(folder / "dictionary"))
