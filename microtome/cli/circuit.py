"""`microtome circuit`: which heads and MLPs, or edges between them, do a task, and how far they alone suffice."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from microtome.circuits.circuit_files import grouped, read_mib, write_mib
from microtome.circuits.circuit_score import CircuitReport, along, band, best, enough, report, scale, sizes
from microtome.circuits.edges import EdgeGraph
from microtome.cli.discovery import METHODS, Discovered, Field, Options, field_unit
from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.cli.progress import Watcher, watcher
from microtome.core.errors import Refusal
from microtome.data.pair_files import read_prompts
from microtome.data.pairs import Pairs, tokenized
from microtome.data.tasks import aligned_pairs
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.records import Circuit, FaithfulnessCurve, Judged, Overlap

LISTED = 10_000  # units in circuit.json
SPARE = 4  # times as many pairs are drawn as are needed, as some are drawn twice
Method = Literal["eap", "eap-ig", "exact", "acdc", "mask"]


def circuit(
    model: str,
    /,
    *,
    into: Path,
    task: str = "pronoun",
    pairs: Path | None = None,
    method: Method = "eap-ig",
    edges: Annotated[bool, Parameter(negative="--nodes")] = True,
    train: int = 32,
    held_out: int = 16,
    count: int | None = None,
    steps: int = 5,
    threshold: float | None = None,
    price: float | None = None,
    samples: int = 20,
    circuit: Path | None = None,
    mib: Path | None = None,
    rows: int = 256,
    seed: int = 0,
    device: str = "cpu",
    json: Path | None = None,
) -> Circuit:
    """Find the circuit of a task on some pairs of prompts, and judge it on others that it was not found on.

    Whatever is left out of the circuit carries the corrupt prompt. A table is printed, and circuit.json written.

    Parameters
    ----------
    model
        A folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    into
        The folder to write.
    task
        pronoun, ioi, greater_than, docstring, arithmetic or mcqa.
    pairs
        A JSON file in place of a task: a list of {"clean", "corrupt", "right", "wrong"}.
    method
        eap and eap-ig estimate each unit from gradients, exact leaves each out in turn, acdc and mask search for a set.
    edges
        Units are edges between heads and MLPs, or these themselves.
    train
        Pairs to find the circuit on.
    held_out
        Pairs to judge it on.
    count
        Units in the circuit (default: the fewest whose faithfulness on the training pairs is .85).
    steps
        Points on the way from clean to corrupt, for eap-ig.
    threshold
        What an edge must move the measure by to stay, for acdc (default: 1% of the gap of clean and corrupt).
    price
        What keeping all edges costs in squared units of the measure, for mask (default: .3 of the gap, squared).
    samples
        Random sets of each kind.
    circuit
        Judge the circuit of this file, in the form of the benchmark MIB, and look for none.
    mib
        Also write the circuit to this file, in that form.
    rows
        Prompts in one forward pass, at most.
    seed
        Of everything random.
    device
        Where the model runs.
    json
        Also write the figures to this file.
    """
    began, watch = time.perf_counter(), watcher()
    refuse_counts({"train": train, "held-out": held_out, "count": 1 if count is None else count}, samples)
    refuse_nodes(mib is not None and not edges, circuit is not None and not edges)
    loaded = load(model, device=device)
    found_on, judged_on = split(pairs_of(loaded, task, pairs, train + held_out, seed), train, held_out)
    field, other = (Field(loaded, some, edges, rows) for some in (found_on, judged_on))
    asked = Options(steps, threshold, price, seed)
    found = METHODS[method](field, asked, watch) if circuit is None else imported(circuit, field)
    reached = searched_size(field, found, watch)
    size = count or chosen_size(found, reached)
    record = judge(other, found, size, reached, samples, seed, watch).model_copy(
        update={
            "model": model, "task": str(pairs or task), "method": method if circuit is None else f"from {circuit}",
            "training_pairs": len(found_on), "seconds": time.perf_counter() - began,
        }
    )  # fmt: skip
    record.write(into)
    arguments = {"task": task, "pairs": pairs, "method": method, "circuit": circuit, "seed": seed}
    finished("circuit", model, arguments, into, record.seconds)
    if mib is not None:
        write_mib(as_graph(field, found, size), mib, d_model=width_of(field))
    write_figures(record, json)
    show(record)
    return record


# ---------------------------------------------------------------- pairs


def refuse_counts(counts: Mapping[str, int], samples: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise Refusal(f"--{name} is {value}; give at least 1")
    if samples < 2:
        raise Refusal(f"--samples is {samples}; give at least 2")


def refuse_nodes(mib_of_nodes: bool, from_nodes: bool) -> None:
    if mib_of_nodes or from_nodes:
        raise Refusal("the benchmark's files hold edges; leave --nodes away")


def pairs_of(model: HookedModel, task: str, file: Path | None, count: int, seed: int) -> Pairs:
    """Different pairs, in random order: at least two, and of a task as many as are asked for."""
    draw = torch.Generator().manual_seed(seed)
    if file is None:
        found = aligned_pairs(task, SPARE * count, model.encode, draw, context=model.context).distinct()
        if len(found) < count:
            raise Refusal(
                f"{SPARE * count} prompts of {task} hold {len(found)} different pairs, and {count} are needed"
            )
    else:
        found = tokenized(read_prompts(file), model.encode, context=model.context).aligned().distinct()
        if len(found) < 2:
            raise Refusal(f"{file} holds one pair, and one is needed to find a circuit, another to judge it: add pairs")
    found = found.picked(torch.randperm(len(found), generator=draw).tolist())
    return replace(found, clean=found.clean.to(model.device), corrupt=found.corrupt.to(model.device))


def split(pairs: Pairs, train: int, held_out: int) -> tuple[Pairs, Pairs]:
    """Those to find a circuit on and those to judge it on: as asked, or a third to judge where there are too few."""
    judging = min(held_out, max(1, len(pairs) // 3)) if len(pairs) < train + held_out else held_out
    return pairs.rows(slice(judging, judging + train)), pairs.rows(slice(0, judging))


# ---------------------------------------------------------------- found, or given


def imported(path: Path, field: Field) -> Discovered:
    """The circuit of a file. Raises Refusal where it is one of a network of another shape."""
    graph, anatomy = read_mib(path), field.wired.anatomy
    there, here = ((a.layers, a.heads, a.parallel) for a in (graph.anatomy, anatomy))
    if there != here:
        raise Refusal(
            f"{path} is a circuit of {there[0]} layers and {there[1]} heads each, and {field.model.name} has {here[0]} "
            f"and {here[1]}{'' if there[2] == here[2] else ', joined otherwise'}; give one of this model"
        )
    graph = grouped(graph, anatomy.kv_heads)
    return field.of_edges(graph, kept=len(graph) < int(anatomy.possible.sum()))


def searched_size(field: Field, found: Discovered, watch: Watcher) -> int:
    """The fewest first units that suffice on the pairs on which the circuit was found."""
    with watch.stage("size", 1, "circuits") as advance:
        reached = enough(found.ranked, field.game)
        advance(1)
    return reached


def chosen_size(found: Discovered, reached: int) -> int:
    """As many as a search kept, if it kept any, and else those that suffice."""
    kept = 0 if found.kept is None else int(found.kept.sum())
    return kept or reached


def as_graph(field: Field, found: Discovered, count: int) -> EdgeGraph:
    """The circuit over its network."""
    anatomy = field.wired.anatomy
    scores = torch.zeros(anatomy.possible.shape).masked_scatter(anatomy.possible, found.scores.cpu())
    first = best(found.ranked.cpu(), count)
    kept = torch.zeros_like(anatomy.possible).masked_scatter(anatomy.possible, first)
    return replace(EdgeGraph.of(anatomy, scores[None]), kept=kept)


def width_of(field: Field) -> int:
    site = field.wired.layers[0].pre
    return field.model.run(field.wired.token, read=[site])[site].shape[-1]


# ---------------------------------------------------------------- judged


def judge(
    field: Field, found: Discovered, count: int, reached: int, samples: int, seed: int, watch: Watcher
) -> Circuit:
    """All figures on pairs that the circuit was not found on."""
    game, generator = field.game, torch.Generator().manual_seed(seed)
    ranked, counts = found.ranked.cpu(), sorted({*sizes(len(game.units)), count, reached})
    with watch.stage("judge", 3, "parts") as advance:
        fixed = None if found.kept is None and len(found.each) > 1 else ranked
        verdict = report(game, found.each.cpu(), count, generator, ranked=fixed, samples=samples)
        advance(1)
        faithful = along(ranked, game, counts)
        advance(2)
        low, mean, high = band(game, counts, generator, samples=max(2, samples // 2)).T.tolist()
        advance(3)
    order = ranked.argsort(descending=True, stable=True)[: max(LISTED, count)].tolist()
    ends, anatomy, prompt = scale(game), field.wired.anatomy, field.pairs.prompts[0]
    return Circuit(
        model="", task="", method="", kind=field_unit(field), measure=field.pairs.difference().label, training_pairs=0,
        held_out_pairs=len(field.pairs), example=[prompt.clean, prompt.corrupt, prompt.right[0], prompt.wrong[0]],
        whole=ends.whole, nothing=ends.nothing, layers=anatomy.layers, heads=anatomy.heads,
        kv_heads=anatomy.kv_heads, total=len(game.units), units=[game.units[i] for i in order],
        scores=[-float(found.scores[i]) for i in order], count=count, reached=reached,
        curve=FaithfulnessCurve(counts=counts, faithfulness=faithful.tolist(), low=low, mean=mean, high=high),
        judged=judged(verdict), seconds=0.0,
    )  # fmt: skip


def judged(verdict: CircuitReport) -> Judged:
    low, high = verdict.chance.interval
    steady = verdict.stability
    return Judged(
        faithfulness=verdict.faithfulness, cpr=verdict.curve.cpr, cmd=verdict.curve.cmd,
        random_mean=float(verdict.chance.faithfulness.mean()), random_low=low, random_high=high, p=verdict.chance.p,
        completeness_mean=verdict.completeness.mean, completeness_worst=verdict.completeness.worst,
        completeness_worst_set=list(verdict.completeness.worst_set), minimality=verdict.minimality,
        stability=None if steady is None else Overlap(
            mean=steady.mean, low=steady.low, high=steady.high, stable=steady.stable
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- on one screen


def show(record: Circuit) -> None:
    """One line for each judgement, and the first units."""
    console = Console()
    console.print(
        f"{record.model}, {record.task}: {record.count} of {record.total} {record.kind} by {record.method}, judged on "
        f"{record.held_out_pairs} pairs that were held out; {record.measure} {record.whole:+.3f}, with nothing kept "
        f"{record.nothing:+.3f}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, show_header=False)
    for name, words in judgements(record).items():
        table.add_row(name, words)
    console.print(table, markup=False, highlight=False)
    shown = ", ".join(f"{u} {s:+.3f}" for u, s in list(zip(record.units, record.scores, strict=True))[:8])
    console.print(f"first: {shown}", markup=False, highlight=False, soft_wrap=True)


def judgements(record: Circuit) -> dict[str, str]:
    found = record.judged
    weakest = min(found.minimality, key=lambda name: found.minimality[name])
    steady = found.stability
    return {
        "faithfulness": f"{found.faithfulness:.3f}",
        "enough for .85": f"{record.reached} {record.kind}, on the {record.training_pairs} training pairs",
        "random circuits": f"{interval(found.random_mean, found.random_low, found.random_high)}, p = {found.p:.2g}",
        "CPR, CMD": f"{found.cpr:.3f}, {found.cmd:.3f}",
        "completeness": (
            f"off by {found.completeness_mean:.3f}, at worst {found.completeness_worst:.3f}, without "
            + ", ".join(found.completeness_worst_set)
        ),
        "minimality": f"{weakest} is worth least, {found.minimality[weakest]:.3f}",
        "stability": "not measured: no pair has scores of its own" if steady is None else told(steady),
    }


def told(found: Overlap) -> str:
    return f"{'stable' if found.stable else 'unstable'}, Jaccard {interval(found.mean, found.low, found.high)}"


def interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"
