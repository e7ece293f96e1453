"""`microtome graph`: what on a prompt wrote what the next token is read from, as an attribution graph."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict

from microtome.circuits.attribution_graph import Graph, graph_of
from microtome.circuits.graph_files import write_graph
from microtome.circuits.graph_interventions import Comparison, compare, held_attention
from microtome.circuits.influence import Scores, influence
from microtome.circuits.pruning import EDGES, NODES, Pruned, graph_scores, graph_scores_as_circuit_tracer, prune
from microtome.circuits.replacement import FEATURE, TARGET, Replacement
from microtome.circuits.targets import Target, TopLogits
from microtome.core.errors import Refusal
from microtome.core.inputs import Inputs
from microtome.dictionaries.formats.registry import find_all
from microtome.models.hooked import HookedModel
from microtome.models.load import load

Text = Callable[[int], str]


class Scored(BaseModel):
    """Shares from 0 to 1: how much of the targets goes back to tokens, how much of what is read is no error."""

    model_config = ConfigDict(extra="forbid")
    replacement: float
    completeness: float


class Correlated(BaseModel):
    """What the graph foretold of taking components away, beside what that did; None where neither changes."""

    model_config = ConfigDict(extra="forbid")
    components: int
    pearson: float | None
    spearman: float | None


class Explained(BaseModel):
    """One target: its text, its probability, and its logit less the mean over the vocabulary."""

    model_config = ConfigDict(extra="forbid")
    token: str
    probability: float
    logit: float


class Graphed(BaseModel):
    """A graph in figures. `incomplete`: how far edges and bias are from a node's activity, of the largest summed.

    `whole` and `kept` are scores as the paper defines them, before and after pruning; `whole_as_circuit_tracer` is what
    circuit-tracer would print.
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    prompt: str
    tokens: int
    components: int
    explored: int
    edges: int
    kept_nodes: int
    kept_edges: int
    targets: list[Explained]
    incomplete: float
    whole: Scored
    kept: Scored
    whole_as_circuit_tracer: Scored
    attention_held: Correlated
    attention_free: Correlated
    seconds: float


def graph(
    model: str,
    /,
    *,
    prompt: str,
    dictionaries: Annotated[list[str], Parameter(consume_multiple=True)],
    into: Path,
    nodes: float = NODES,
    edges: float = EDGES,
    logits: int = 10,
    mass: float = 0.95,
    most: int | None = None,
    drop: float = 0.0,
    interventions: int = 20,
    through_mlps: bool = False,
    allow_pickle: bool = False,
    json: Path | None = None,
) -> Graphed:
    """Build the attribution graph of one prompt, prune it, and test it by taking components away.

    Writes graph.json, in the schema of circuit-tracer and Neuronpedia, and summary.json.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    prompt
        The text whose next token is explained.
    dictionaries
        Transcoders (one for each layer, or a cross-layer one) or autoencoders, in any format:
        folders, files or hub names.
    into
        The folder to write.
    nodes
        The share of influence that the nodes that are kept carry.
    edges
        The same, of edges among these.
    logits
        At most so many next tokens are explained.
    mass
        As many as make up this probability.
    most
        Explore so many components, the most influential first; all by default.
    drop
        The share of each node's incoming weight that need not be stored; it counts as error.
    interventions
        So many of the most influential components are taken away, one at a time.
    through_mlps
        Follow the derivative of MLPs that no dictionary stands for, in place of calling them errors.
    allow_pickle
        Read files of torch.save: tensors and plain values, and nothing that runs.
    json
        Also write the summary to this file.
    """
    began = time.perf_counter()
    if interventions < 0:
        raise Refusal(f"--interventions is {interventions}; give how many components to take away, or 0 for none")
    loaded = load(model)
    inputs = tokens_of(loaded, prompt)
    found = [f.dictionary.requires_grad_(False) for d in dictionaries for f in find_all(d, allow_pickle=allow_pickle)]
    replacement = Replacement(loaded, inputs, found, through_mlps=through_mlps)
    wanted = TopLogits(logits, mass)
    whole = graph_of(replacement, wanted, most=most, drop=drop)
    pruned = prune(whole, nodes, edges)
    target = wanted.on(replacement)[0]
    held, free = (taken_away(loaded, replacement, whole, target, interventions, hold) for hold in (True, False))
    into.mkdir(parents=True, exist_ok=True)
    write_graph(
        pruned, into / "graph.json", slug=into.name, scan=Path(model).name, decode=reader(loaded), prompt=prompt,
        node_threshold=nodes,
    )  # fmt: skip
    summary = told(model, prompt, pruned, reader(loaded), held, free, time.perf_counter() - began)
    for file in (into / "summary.json", *([json] if json else [])):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(summary.model_dump_json(indent=2))
    show(summary, into)
    return summary


def tokens_of(model: HookedModel, prompt: str) -> Inputs:
    """Raises Refusal for a prompt that is longer than the model's context."""
    inputs = model.inputs(prompt)
    length, context = len(model.encode(prompt)), getattr(model.module.config, "max_position_embeddings", None)
    if context is not None and length > context:
        raise Refusal(f"the prompt has {length} tokens and {model.name} reads {context}; give a shorter one")
    return inputs


def reader(model: HookedModel) -> Text:
    """The text of a token."""
    return lambda token: model.tokenizer.decode([token])


def taken_away(
    model: HookedModel, replacement: Replacement, graph: Graph, target: Target, count: int, hold: bool
) -> Correlated:
    """The most influential components, taken away one by one, attention held as it was or free."""
    reached = influence(graph.edges.shares(), graph.weights).masked_fill(~graph.which(FEATURE), 0.0)
    chosen = [i for i in reached.topk(min(count, len(reached))).indices.tolist() if reached[i] > 0]
    if not chosen:
        return Correlated(components=0, pearson=None, spearman=None)
    held = held_attention(replacement) if hold else []
    found: Comparison = compare(model, replacement, graph, target, chosen, hold=held)
    return Correlated(components=len(chosen), pearson=known(found.pearson), spearman=known(found.spearman))


def known(number: float) -> float | None:
    return None if math.isnan(number) else number


def told(
    model: str, prompt: str, pruned: Pruned, text: Text, held: Correlated, free: Correlated, seconds: float
) -> Graphed:
    graph, kept = pruned.graph, pruned.kept()
    targets = [
        Explained(token=text(node.index), probability=float(weight), logit=node.activity)
        for node, weight in zip(graph.nodes, graph.weights, strict=True)
        if node.kind == TARGET
    ]
    features = graph.which(FEATURE)
    return Graphed(
        model=model, prompt=prompt, tokens=len(graph.tokens), components=int(features.sum()),
        explored=int((features & graph.explored).sum()), edges=len(graph.edges), kept_nodes=len(kept),
        kept_edges=len(kept.edges), targets=targets, incomplete=graph.incomplete, whole=scored(graph_scores(graph)),
        kept=scored(graph_scores(kept)), whole_as_circuit_tracer=scored(graph_scores_as_circuit_tracer(graph)),
        attention_held=held, attention_free=free, seconds=seconds,
    )  # fmt: skip


def scored(found: Scores) -> Scored:
    return Scored(replacement=found.replacement, completeness=found.completeness)


def show(summary: Graphed, into: Path) -> None:
    print(
        f"{summary.components} components on {summary.tokens} tokens, {summary.edges} edges; "
        f"{summary.kept_nodes} nodes and {summary.kept_edges} edges kept"
    )
    for name, scored in (("whole graph", summary.whole), ("kept", summary.kept)):
        print(f"{name}: replacement {scored.replacement:.3f}, completeness {scored.completeness:.3f}")
    printed = summary.whole_as_circuit_tracer
    print(f"as circuit-tracer prints them: {printed.replacement:.3f} and {printed.completeness:.3f}")
    for name, found in (("held", summary.attention_held), ("free", summary.attention_free)):
        if found.spearman is not None and found.pearson is not None:
            print(
                f"{found.components} components taken away, attention {name}: foretold and measured agree to "
                f"{found.pearson:.2f} (ranks {found.spearman:.2f})"
            )
    print(f"written to {into / 'graph.json'}")
