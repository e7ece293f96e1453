"""summary.json of an attribution graph: its size, how much it explains, and how well it foretells."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from microtome.store.records.record import Record


class GraphScores(BaseModel):
    """Shares from 0 to 1: how much of the targets goes back to tokens, how much of what is read is no error."""

    model_config = ConfigDict(extra="forbid")
    replacement: float
    completeness: float


class Foretold(BaseModel):
    """What the graph foretold of taking components away, beside what that did; None where neither changes."""

    model_config = ConfigDict(extra="forbid")
    components: int
    pearson: float | None
    spearman: float | None


class GraphTarget(BaseModel):
    """One target: its text, its probability, and its logit less the mean over the vocabulary."""

    model_config = ConfigDict(extra="forbid")
    token: str
    probability: float
    logit: float


class Graphed(Record[Literal["microtome/graph-summary/1"]]):
    """summary.json of a graph, whose nodes and edges stand in graph.json.

    `incomplete`: how far edges and bias are from a node's activity, of the largest summed. `whole` and `kept` are
    scores as the paper defines them, before and after pruning; `whole_as_circuit_tracer` is what circuit-tracer prints.
    What was dropped, or cut, of what nodes read is `left_out`.
    """

    file: ClassVar[str] = "summary.json"
    schema_name: Literal["microtome/graph-summary/1"] = Field(default="microtome/graph-summary/1", alias="schema")
    model: str
    prompt: str
    tokens: int
    components: int
    explored: int
    edges: int
    kept_nodes: int
    kept_edges: int
    targets: list[GraphTarget]
    incomplete: float
    whole: GraphScores
    kept: GraphScores
    whole_as_circuit_tracer: GraphScores
    whole_left_out: float
    kept_left_out: float
    attention_held: Foretold
    attention_free: Foretold
    seconds: float
