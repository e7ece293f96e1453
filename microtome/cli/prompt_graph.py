"""The graph of one prompt as `microtome graph` was asked for it: built once, and again from its run for a live page."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from microtome.circuits.attribution_graph import Graph, graph_of
from microtome.circuits.pruning import EDGES, NODES
from microtome.circuits.replacement import Replacement
from microtome.circuits.targets import Target, TopLogits
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.dictionaries.formats.registry import find_all
from microtome.models.hooked import HookedModel
from microtome.models.load import load


class Asked(BaseModel):
    """The arguments of a graph, as they stand in its run.json. See `microtome graph --help`; `memory` is in GB."""

    model_config = ConfigDict(extra="forbid")
    prompt: str
    dictionaries: list[str]
    nodes: float = NODES
    edges: float = EDGES
    logits: int = 10
    mass: float = 0.95
    most: int | None = None
    drop: float = 0.0
    interventions: int = 20
    through_mlps: bool = False
    allow_pickle: bool = False
    memory: float | None = None

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "Asked":
        """Raises Refusal for the arguments of a run that lack what a graph needs."""
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            fault = error.errors()[0]
            raise Refusal(
                f"run.json does not say how this graph was made ({'.'.join(map(str, fault['loc']))}: "
                f"{fault['msg'].lower()}); write it with `microtome graph`"
            ) from None


@dataclass(frozen=True, eq=False)
class PromptGraph:
    """A model, its replacement on one prompt, the whole graph of that, and what the graph explains."""

    model: HookedModel
    replacement: Replacement
    graph: Graph
    targets: list[Target]

    @classmethod
    def build(cls, model: str, asked: Asked) -> "PromptGraph":
        """Raises Refusal for a prompt or dictionaries that do not fit the model, and a graph too large for memory."""
        loaded = load(model)
        inputs = tokens_of(loaded, asked.prompt)
        found = [
            f.dictionary.requires_grad_(False)
            for name in asked.dictionaries
            for f in find_all(name, allow_pickle=asked.allow_pickle)
        ]
        replacement = Replacement(loaded, inputs, found, through_mlps=asked.through_mlps)
        wanted = TopLogits(asked.logits, asked.mass)
        memory = None if asked.memory is None else int(asked.memory * 1e9)
        graph = graph_of(replacement, wanted, most=asked.most, drop=asked.drop, memory=memory)
        return cls(loaded, replacement, graph, wanted.on(replacement))


def tokens_of(model: HookedModel, prompt: str) -> Inputs:
    """Raises Refusal for a prompt that is longer than the model's context."""
    inputs = model.inputs(prompt)
    length, context = len(model.encode(prompt)), model.context
    if context is not None and length > context:
        raise Refusal(f"the prompt has {length} tokens and {model.name} reads {context}; give a shorter one")
    return inputs


def absolute(name: str) -> str:
    """A path as it is from anywhere; a name of the hub, and `specimen` whatever lies here, as they are."""
    here = Path(name).expanduser()
    return str(here.resolve()) if name != "specimen" and here.exists() else name


def known(number: float) -> float | None:
    """A correlation, or None where there is none."""
    return None if math.isnan(number) else number
