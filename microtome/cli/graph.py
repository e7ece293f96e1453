"""`microtome graph`: what on a prompt wrote what the next token is read from, as an attribution graph."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.circuits.graph_files import write_graph
from microtome.circuits.graph_interventions import Comparison, compare, held_attention
from microtome.circuits.influence import Scores, influence
from microtome.circuits.pruning import (
    EDGES,
    NODES,
    Pruned,
    graph_scores,
    graph_scores_as_circuit_tracer,
    left_out,
    prune,
)
from microtome.circuits.replacement import FEATURE, TARGET
from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.cli.prompt_graph import Asked, PromptGraph, absolute, known
from microtome.core.errors import Refusal
from microtome.data.windows import pieces
from microtome.store.records import Foretold, Graphed, GraphScores, GraphTarget

Text = Callable[[int], str]


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
    memory: float | None = None,
    json: Path | None = None,
) -> Graphed:
    """Build the attribution graph of one prompt, prune it, and test it by taking components away.

    Writes graph.json, in the schema of circuit-tracer and Neuronpedia, summary.json, and run.json, which names the
    dictionaries, so that `microtome browse` shows the graph and makes interventions on it.

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
    memory
        The GB that the graph's edges may take; what is free by default. A larger graph is refused with an estimate.
    json
        Also write the summary to this file.
    """
    began = time.perf_counter()
    if interventions < 0:
        raise Refusal(f"--interventions is {interventions}; give how many components to take away, or 0 for none")
    asked = Asked(
        prompt=prompt, dictionaries=[absolute(d) for d in dictionaries], nodes=nodes, edges=edges, logits=logits,
        mass=mass, most=most, drop=drop, interventions=interventions, through_mlps=through_mlps,
        allow_pickle=allow_pickle, memory=memory,
    )  # fmt: skip
    built = PromptGraph.build(model, asked)
    pruned = prune(built.graph, nodes, edges)
    held, free = (taken_away(built, interventions, hold) for hold in (True, False))
    into.mkdir(parents=True, exist_ok=True)
    write_graph(
        pruned, into / "graph.json", slug=into.name, scan=Path(model).name, decode=reader(built), prompt=prompt,
        node_threshold=nodes, transcoders=[Path(d).name for d in asked.dictionaries],
        about={"interventions": {"held": held.model_dump(), "free": free.model_dump()}},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    finished("graph", absolute(model), asked.model_dump(), into, seconds)
    summary = told(model, prompt, pruned, reader(built), held, free, seconds)
    summary.write(into)
    write_figures(summary, json)
    show(summary, into)
    return summary


def reader(built: PromptGraph) -> Text:
    """The text of a token as it stands inside a text, its leading space included."""
    return lambda token: pieces(built.model.tokenizer, [token])[0]


def taken_away(built: PromptGraph, count: int, hold: bool) -> Foretold:
    """The most influential components, taken away one by one, attention held as it was or free."""
    graph = built.graph
    reached = influence(graph.edges.shares(), graph.weights).masked_fill(~graph.which(FEATURE), 0.0)
    chosen = [i for i in reached.topk(min(count, len(reached))).indices.tolist() if reached[i] > 0]
    if not chosen:
        return Foretold(components=0, pearson=None, spearman=None)
    held = held_attention(built.replacement) if hold else []
    found: Comparison = compare(built.model, built.replacement, graph, built.targets[0], chosen, hold=held)
    return Foretold(components=len(chosen), pearson=known(found.pearson), spearman=known(found.spearman))


def told(
    model: str, prompt: str, pruned: Pruned, text: Text, held: Foretold, free: Foretold, seconds: float
) -> Graphed:
    graph, kept = pruned.graph, pruned.kept()
    targets = [
        GraphTarget(token=text(node.index), probability=float(weight), logit=node.activity)
        for node, weight in zip(graph.nodes, graph.weights, strict=True)
        if node.kind == TARGET
    ]
    features = graph.which(FEATURE)
    return Graphed(
        model=model, prompt=prompt, tokens=len(graph.tokens), components=int(features.sum()),
        explored=int((features & graph.explored).sum()), edges=len(graph.edges), kept_nodes=len(kept),
        kept_edges=len(kept.edges), targets=targets, incomplete=graph.incomplete, whole=scored(graph_scores(graph)),
        kept=scored(graph_scores(kept)), whole_as_circuit_tracer=scored(graph_scores_as_circuit_tracer(graph)),
        whole_left_out=left_out(graph), kept_left_out=left_out(kept),
        attention_held=held, attention_free=free, seconds=seconds,
    )  # fmt: skip


def scored(found: Scores) -> GraphScores:
    return GraphScores(replacement=found.replacement, completeness=found.completeness)


def show(summary: Graphed, into: Path) -> None:
    print(
        f"{summary.components} components on {summary.tokens} tokens, {summary.edges} edges; "
        f"{summary.kept_nodes} nodes and {summary.kept_edges} edges kept"
    )
    whole, kept = (summary.whole, summary.whole_left_out), (summary.kept, summary.kept_left_out)
    for name, (scored, lost) in (("whole graph", whole), ("kept", kept)):
        print(
            f"{name}: replacement {scored.replacement:.3f}, completeness {scored.completeness:.3f}, left out {lost:.3f}"
        )
    printed = summary.whole_as_circuit_tracer
    print(f"as circuit-tracer prints them: {printed.replacement:.3f} and {printed.completeness:.3f}")
    for name, found in (("held", summary.attention_held), ("free", summary.attention_free)):
        if found.spearman is not None and found.pearson is not None:
            print(
                f"{found.components} components taken away, attention {name}: foretold and measured agree to "
                f"{found.pearson:.2f} (ranks {found.spearman:.2f})"
            )
    print(f"written to {into / 'graph.json'}")
