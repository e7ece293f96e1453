"""`microtome decompose`: a network's weights as parts, each with its activation, its importance and its partners."""

import time
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter
from jaxtyping import Int
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from microtome.cli.decomposition import alone, endured, meaning, seen, write_parts
from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.cli.progress import Watcher, watcher
from microtome.core.errors import Refusal
from microtome.data.stdlib import modules
from microtome.data.text import text as read_text
from microtome.data.windows import windows
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.parameters.apd import APD
from microtome.parameters.decompose import Decomposition, Method
from microtome.parameters.decompose import decompose as take_apart
from microtome.parameters.objectives import divergence, squared
from microtome.parameters.source import Given, Occupied, Source
from microtome.parameters.spd import SPD
from microtome.parameters.svd import SVD
from microtome.parameters.vpd import VPD
from microtome.store.records import TakenApart
from microtome.studies import apd, apd_across, residual_mlp, spd
from microtome.toys.named import CASES, toy

Name = Literal["spd", "vpd", "apd", "svd"]
TRAINED_ON = 512  # windows of text, for a model
METHODS: dict[str, dict[Name, Method]] = {  # what differs from a method's own defaults, by toy
    "superposition-40-10": {"spd": spd.WIDE},
    "superposition-40-10-tied": {"apd": apd.WIDE},
    "residual-mlp-1": {"spd": residual_mlp.SPD_OF_MORE},
    "gated-trigonometry": {"apd": apd_across.GATED.method},
    "modular-addition": {"spd": SPD(parts=100, minimal=1e-2, steps=3000), "vpd": VPD(parts=100, minimal=1e-2)},
}  # fmt: skip
DEFAULTS: dict[Name, Method] = {"spd": SPD(), "vpd": VPD(), "apd": APD(), "svd": SVD()}


@dataclass(frozen=True)
class Subject:
    """What is taken apart, the rows it is taken apart on and those it is judged on.

    `texts` are the tokens of the judged rows, where rows are tokens; `alone` as in `microtome.toys.named.Case`.
    """

    module: nn.Module
    data: Source
    sites: list[str]
    judged: Tensor
    inputs: tuple[str, ...] = ()
    texts: tuple[tuple[str, ...], ...] = ()
    alone: float | None = None
    logits: bool = False
    seeds: int = 1
    empty: float = 0.0  # the share of rows drawn that are all zero, of which none is judged


def decompose(
    model: str,
    /,
    *,
    into: Path,
    method: Name = "spd",
    sites: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seeds: int | None = None,
    parts: int | None = None,
    steps: int | None = None,
    minimal: float | None = None,
    rows: int | None = None,
    judge: int = 512,
    adversary: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    context: int = 32,
    seed: int = 0,
    device: str = "cpu",
    json: Path | None = None,
) -> TakenApart:
    """Take weights apart into parts few of which matter on any input, and see what the network does without the others.

    Parameters
    ----------
    model
        A toy (superposition-5-2, superposition-5-2-identity, superposition-40-10, residual-mlp-1, gated-trigonometry,
        modular-addition), a folder in Hugging Face's format, a hub name, or `specimen` (ships with the package).
    into
        The folder to write: decomposition.json, parts.safetensors and run.json.
    method
        spd, vpd (an adversary while learning) and apd (parts across weights) learn which parts matter; svd does not.
    sites
        Names or patterns of weights, such as `layers.0.w_in` or `*.c_fc` (default: those of interest in a toy).
    seeds
        Decompositions learnt side by side, of which that of least loss is kept (default: 4 of a toy, 1 of a model).
    parts
        For each weight (default: the method's own for this toy).
    steps
        Of learning (default: likewise).
    minimal
        What it costs that a part matters, for spd, vpd and apd (default: likewise).
    rows
        In a batch (default: likewise; of text, windows).
    judge
        Rows that the parts are judged on: of text, tokens.
    adversary
        After how many steps of ascent to look at the adversary (default: 20).
    text
        Files, folders or patterns that a model reads (default: the source of Python's standard library).
    context
        Tokens in a window of text.
    seed
        Of everything random.
    device
        Where it runs.
    json
        Also write the record to this file.
    """
    began, watch = time.perf_counter(), watcher()
    generator = torch.Generator(device).manual_seed(seed + 1)
    subject = of_toy(model, judge, generator) if model in CASES else of_model(model, text, context, judge, device)
    how = chosen(METHODS.get(model, {}).get(method, DEFAULTS[method]), parts, steps, minimal, rows, subject)
    found = learnt(subject, how, sites or subject.sites, seeds, seed, watch)
    record = judged(found, how, subject, tuple(adversary or [20]), generator, into)
    record = record.model_copy(update={"model": model, "method": method, "seconds": time.perf_counter() - began})
    record.write(into)
    arguments = {"method": method, "sites": sites, "seeds": seeds, "parts": parts, "steps": steps, "seed": seed}
    finished("decompose", model, arguments, into, record.seconds)
    write_figures(record, json)
    show(record)
    return record


# ---------------------------------------------------------------- what is taken apart


def of_toy(name: str, judge: int, generator: torch.Generator) -> Subject:
    case = toy(name)
    module, data = case.module.to(generator.device), case.data
    feed = Occupied(data, generator, counted=10_000)
    return Subject(
        module, data, list(case.sites), feed.batch(judge + 1, (), generator).x[1:], case.inputs, alone=case.alone,
        logits=case.output == "logits", seeds=4 if case.many_seeds else 1, empty=feed.empty,
    )  # fmt: skip


def of_model(name: str, text: list[str] | None, context: int, judge: int, device: str) -> Subject:
    """A model of tokens. It is judged on text that it was not taken apart on."""
    model = load(name, device=device)
    held = -(-judge // context)
    found = tokens(model, text, context, TRAINED_ON + held).to(device)
    if len(found) <= held:
        raise Refusal(f"the text holds {len(found)} windows of {context} tokens, and {held + 1} are needed; give more")
    judged_on = found[-held:]
    said = tuple(tuple(model.tokenizer.decode([i]) for i in row) for row in judged_on.tolist())
    return Subject(model.module.requires_grad_(False), Given(found[:-held]), [], judged_on, texts=said, logits=True)


def tokens(model: HookedModel, paths: list[str] | None, context: int, most: int) -> Int[Tensor, "windows context"]:

    documents = modules() if not paths else read_text(list(paths))
    cut = windows(documents, model.tokenizer, context)
    return torch.stack([torch.from_numpy(w.tokens) for w, _ in zip(cut, range(most), strict=False)])


# ---------------------------------------------------------------- how


def chosen(
    method: Method, parts: int | None, steps: int | None, minimal: float | None, rows: int | None, subject: Subject
) -> Method:
    """The method with what was asked for. Raises Refusal for what it does not have."""
    asked: dict[str, Any] = {"parts": parts, "steps": steps, "minimal": minimal, "rows": rows}
    asked = {name: value for name, value in asked.items() if value is not None}
    known = {f.name for f in fields(method)} if is_dataclass(method) and not isinstance(method, SVD) else set()
    if unknown := set(asked) - known:
        raise Refusal(f"{type(method).__name__} has no --{min(unknown)}; leave it out, or choose another --method")
    for name, value in asked.items():
        if value <= 0:
            raise Refusal(f"--{name} is {value:g}; give a number above 0")
    if isinstance(method, SPD):
        asked["distance"] = divergence if subject.logits else squared
    if subject.texts and isinstance(method, SPD):
        asked.setdefault("rows", 8)
    return replace(method, **asked)  # pyright: ignore[reportArgumentType]


def learnt(
    subject: Subject, how: Method, sites: list[str], seeds: int | None, seed: int, watch: Watcher
) -> Decomposition:
    if not sites:
        raise Refusal("a model has many weights; name some with --sites, such as *.mlp.c_fc")
    if isinstance(how, APD) and subject.texts:
        raise Refusal("apd takes the slope of every output, and a model of tokens has too many; use spd or vpd")
    many = seeds or (1 if isinstance(how, SVD) else subject.seeds)
    if many > 1 and subject.seeds == 1:
        raise Refusal(f"{many} seeds at once need a network whose inputs may have one more axis; give --seeds 1")
    with watch.stage("learn", how.steps, "steps") as advance:
        return take_apart(subject.module, subject.data, sites, method=how, seeds=many, seed=seed, tell=advance)


def judged(
    found: Decomposition, how: Method, subject: Subject, curve: tuple[int, ...], generator: torch.Generator, into: Path
) -> TakenApart:
    """The record, after parts.safetensors is written."""
    x, distance = subject.judged, divergence if subject.logits else squared
    k = min(how.k / (1 - subject.empty), how.parts) if isinstance(how, APD) else None
    told = seen(found, how, x, k)
    with_gates = subject.alone is not None and len(found.parts.gates) > 0
    by_entry = alone(found, x.shape[-1], subject.alone or 0.0) if with_gates else {}
    into.mkdir(parents=True, exist_ok=True)
    write_parts(into / "parts.safetensors", told, None if subject.texts else x, by_entry)
    return TakenApart(
        model="", method="", settings=settings(how), importance_is=meaning(how), distance=distance.__name__,
        losses=list(found.losses), kept=found.kept, rows=len(told[0].activation), weights=[one.told() for one in told],
        endured=endured(found, how, told, x, distance, curve, generator), inputs=list(subject.inputs),
        texts=[list(row) for row in subject.texts], seconds=0.0,
    )  # fmt: skip


def settings(how: Method) -> dict[str, object]:
    """Numbers as they are, and objects by what they print as; functions by name."""
    held = {f.name: getattr(how, f.name) for f in fields(how)}  # pyright: ignore[reportArgumentType]
    return {name: v if isinstance(v, int | float | str) else getattr(v, "__name__", str(v)) for name, v in held.items()}


# ---------------------------------------------------------------- on one screen


def show(record: TakenApart) -> None:
    console, endured = Console(), record.endured
    table = Table("weight", "parts", "that matter", "largest importance", box=None, title_justify="left")
    for one in record.weights:
        table.add_row(one.name, str(len(one.size)), str(one.alive), f"{max(one.importance):.3f}")
    console.print(table)
    worst = ", ".join(f"{v:.2e} after {n}" for n, v in endured.adversarial.items())
    for name, value in (
        ("all parts, nothing else", endured.unmasked), ("importances as masks", endured.importance),
        ("parts drawn", endured.stochastic), ("no part", endured.nothing),
    ):  # fmt: skip
        console.print(f"{name:<26}{value:.2e}", highlight=False)
    console.print(f"{'by an adversary, steps':<26}{worst}", highlight=False)
    console.print(f"{endured.l0:.2f} parts matter on a row; {record.distance} distance", highlight=False)
