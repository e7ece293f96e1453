"""`microtome dynamics`: a run's checkpoints as curves, and when they change."""

import hashlib
import json as plain
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from cyclopts import Parameter
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from microtome.cli.checkpoint_kinds import Kind, found_in, weight_files
from microtome.cli.checkpoint_measures import (
    COEFFICIENT,
    UNITS,
    Measured,
    TextMeasures,
    Walk,
    lengths,
    refuse_nonsense,
)
from microtome.cli.evaluation import rows_of
from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.cli.progress import Watcher, watcher
from microtome.core.errors import Refusal
from microtome.data.corpus import corpus
from microtome.data.windows import gather
from microtome.dictionaries.files import load_dictionary
from microtome.dynamics.lifelines import Lives, lives
from microtome.dynamics.phases import segments
from microtome.dynamics.record import record
from microtome.dynamics.series import Checkpoint, Curves, watched
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.store.records import Dynamics, Stretch
from microtome.store.tensors import read_tensors

USUAL: dict[Kind, tuple[Measured, ...]] = {
    "model": ("loss", "in_context", "weights"), "weights": ("weights",), "dictionary": (),
}  # fmt: skip
LINES = 48  # components whose lives are drawn one by one
MEASURED = "measured-{}.jsonl"
LIVES = {
    "density": "share of tokens on which it fires",
    "toward": "cosine with what it writes in the end",
}
LIVES_UNITS = {
    "alive": "components", "born": "components", "died": "components", "turned": "degrees, the median of those alive",
    LIVES["density"]: "share", LIVES["toward"]: "cosine",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What was measured over the checkpoints, and the sentences that go with it."""

    curves: Curves
    units: Mapping[str, str]
    said: tuple[str, ...]
    phases: tuple[Stretch, ...] = field(default=())


def dynamics(
    folder: Path,
    /,
    *,
    into: Path,
    measure: Annotated[list[Measured] | None, Parameter(consume_multiple=True)] = None,
    model: str | None = None,
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    windows: int = 64,
    context: int | None = None,
    chains: int = 4,
    steps: int = 200,
    burn: int = 200,
    rate: float = 1e-6,
    localisation: float = 100.0,
    seed: int = 0,
    device: str = "cpu",
    json: Path | None = None,
) -> Dynamics:
    """Measure every checkpoint of a run, find where the curves bend, and write what `browse` draws over the steps.

    Checkpoints stand in one folder, named by step (step1000/, checkpoint-500, 001000.safetensors). Models are measured
    on text; dictionaries have the lives of their components followed; of other weights the lengths are taken. Steps
    that were measured before, in the same way, are not measured again.

    Parameters
    ----------
    folder
        Whose entries are checkpoints: models in Hugging Face's format, dictionaries, or files of weights.
    into
        The folder to write: dynamics.json and run.json.
    measure
        loss, in_context (late losses less early ones), weights, coefficient (the local learning coefficient; chains
        take long). Default: the first three of a model.
    model
        For dictionaries: the model that they read, a folder, a hub name, or `specimen`.
    text
        Files, folders or patterns; the held-out tenth is read (default: the source of Python's standard library).
    windows
        How many windows of text.
    context
        Tokens in a window (default: the model's own, at most 256).
    chains
        For the coefficient, how many at once.
    steps
        Of each chain that count.
    burn
        Steps before those.
    rate
        The variance of a step's noise.
    localisation
        How strongly chains are pulled back to the checkpoint.
    seed
        Of the text's order and of the chains.
    device
        Where models run.
    json
        Also write the record to this file.
    """
    began, watch = time.perf_counter(), watcher()
    kind, found = found_in(folder)
    wanted = tuple(measure or USUAL[kind])
    refuse_unfit(kind, wanted, model)
    walk = Walk(chains, steps, burn, rate, localisation, seed=seed)
    refuse_nonsense(walk)
    into.mkdir(parents=True, exist_ok=True)
    text_of = Windowed(tuple(text or ()), windows, context, seed, device)
    if kind == "dictionary":
        assert model is not None
        seen = of_dictionaries(found, load(model, device=device), text_of, watch)
    else:
        how = measuring(kind, found, wanted, walk, text_of)
        seen = of_networks(found, how, into / MEASURED.format(settled(folder, wanted, walk, text_of)), watch)
    arguments = {"folder": folder, "measure": list(wanted), "model": model, **asdict(text_of), **asdict(walk)}
    drawn = {name.partition("/")[0] for name in seen.curves.values}
    made = record(
        seen.curves, folder.resolve().name, " ".join(seen.said), {n: u for n, u in seen.units.items() if n in drawn},
        seen.phases, as_plain(arguments), time.perf_counter() - began,
    )  # fmt: skip
    made.write(into)
    finished("dynamics", folder.resolve().name, arguments, into, made.seconds)
    write_figures(made, json)
    show(made, into)
    return made


def refuse_unfit(kind: Kind, wanted: tuple[Measured, ...], model: str | None) -> None:
    """Raises Refusal where these checkpoints cannot be measured so."""
    if kind == "weights" and set(wanted) - {"weights"}:
        odd = next(name for name in wanted if name != "weights")
        raise Refusal(
            f"{odd} cannot be measured on weights alone; give checkpoints in Hugging Face's format, each with its "
            "config.json, or --measure weights"
        )
    if kind == "dictionary" and wanted:
        raise Refusal(f"{wanted[0]} is no measure of a dictionary; leave --measure out to follow its components")
    if kind == "dictionary" and model is None:
        raise Refusal("the lives of components need the model that the dictionaries read; name it with --model")


def as_plain(arguments: Mapping[str, object]) -> dict[str, object]:
    return plain.loads(plain.dumps({name: v for name, v in arguments.items() if v is not None}, default=str))


# ---------------------------------------------------------------- networks


@dataclass(frozen=True)
class Windowed:
    """Which text is read, in what windows."""

    text: tuple[str, ...]
    windows: int
    context: int | None
    seed: int
    device: str

    def cut(self, model: HookedModel) -> Tensor:
        """So many windows of text that is held out. Raises Refusal for fewer than one."""
        if self.windows < 1:
            raise Refusal(f"--windows is {self.windows}; give at least 1")
        found = corpus(model, self.text, "held_out", context=self.context, seed=self.seed)
        return gather(found, self.windows).tokens

    @property
    def said(self) -> str:
        return f"the held-out tenth of {', '.join(self.text) or 'the standard library'}"


class Measuring(NamedTuple):
    """How a checkpoint is loaded, what is measured of it, on what, and (by name) why its chains were not healthy."""

    read: Callable[[Path], Any]
    look: Callable[[Any], Mapping[str, float]]
    said: str
    unwell: Mapping[str, str]


def measuring(
    kind: Kind, found: list[Checkpoint], wanted: tuple[Measured, ...], walk: Walk, text: Windowed
) -> Measuring:
    """Of weights their lengths; of a model whatever is wanted, on the same windows at every checkpoint."""
    if kind == "weights":
        return Measuring(weights_of, lengths, f"{len(found):,} files of weights.", {})

    def opened(path: Path) -> HookedModel:
        return load(path, device=text.device, verify=False)

    windows = text.cut(opened(found[-1].path))
    unwell: dict[str, str] = {}
    said = f"{len(found):,} models on {len(windows):,} windows of {windows.shape[1]} tokens, {text.said}."
    return Measuring(opened, TextMeasures(windows, wanted, walk, unwell), said, unwell)


def weights_of(path: Path) -> dict[str, Tensor]:
    return {name: weight for file in weight_files(path) for name, weight in read_tensors(file).items()}


def settled(folder: Path, wanted: tuple[Measured, ...], walk: Walk, text: Windowed) -> str:
    """A name for one way to measure, so that what was measured in another is not taken for it."""
    way = as_plain({"folder": folder.resolve(), "measure": wanted, **asdict(walk), **asdict(text)})
    return hashlib.sha256(plain.dumps(way, sort_keys=True).encode()).hexdigest()[:8]


def of_networks(found: list[Checkpoint], how: Measuring, kept: Path, watch: Watcher) -> Seen:
    curves = Curves([], {})
    with watch.stage("measure", len(found), "checkpoints") as advance:
        for curves in watched(found, how.read, how.look, kept):
            advance(len(curves.steps))
    return Seen(curves, UNITS, (how.said, *no_numbers(curves, how.unwell)), pieces_of(curves))


def no_numbers(curves: Curves, why: Mapping[str, str]) -> Iterator[str]:
    """At which steps the learning coefficient is no number, and what the chains of this sitting said of it."""
    values = curves.values.get(COEFFICIENT, [])
    missing = [step for step, value in zip(curves.steps, values, strict=False) if value != value]
    if missing:
        reasons = "; ".join(dict.fromkeys(why.values())) or "as was said when they were measured"
        steps = ", ".join(f"{step:,}" for step in missing)
        yield f"The learning coefficient is no number at step {steps}: {reasons}."


def pieces_of(curves: Curves) -> tuple[Stretch, ...]:
    """The straight pieces of the curve that stands first, where there are enough checkpoints to tell them."""
    values = [v for v in next(iter(curves.values.values()), []) if v == v]
    if len(values) < max(6, len(curves.steps)):
        return ()
    begins = segments(values)
    ends = [*begins[1:], len(values) - 1]
    return tuple(
        Stretch(name=f"stretch {i}", first=curves.steps[a], last=curves.steps[b])
        for i, (a, b) in enumerate(zip(begins, ends, strict=True), 1)
    )


# ---------------------------------------------------------------- dictionaries


def of_dictionaries(found: list[Checkpoint], model: HookedModel, text: Windowed, watch: Watcher) -> Seen:
    """The life of every component, over the same tokens at all checkpoints."""
    dictionaries = []
    with watch.stage("open", len(found), "dictionaries") as advance:
        for done, checkpoint in enumerate(found, 1):
            dictionaries.append(load_dictionary(checkpoint.path).to(text.device).eval())
            advance(done)
    x = rows_of(model, dictionaries[-1], text.cut(model).to(model.device))
    lived = lives(dictionaries, [c.step for c in found], x)
    curves = life_curves(lived)
    said = f"{len(dictionaries[0]):,} components over {len(x):,} tokens of {text.said}."
    return Seen(curves, LIVES_UNITS, (said,), pieces_of(curves))


def life_curves(lived: Lives) -> Curves:
    """How many live, are born and die at each step, how far they turn, and those most alive one by one."""
    alive, steps = lived.alive(), list(lived.steps)
    born, died = lived.born(), lived.died()
    turned = torch.where(alive, lived.drift(), torch.nan).nanmedian(1).values
    chosen = lived.density.amax(0).topk(min(LINES, lived.density.shape[1])).indices.sort().values.tolist()
    return Curves(steps, {
        "alive": alive.float().sum(1).tolist(),
        "born": [float(born.count(step)) for step in steps],
        "died": [float(died.count(step)) for step in steps],
        "turned": turned.tolist(),
        **profile(LIVES["density"], lived.density, chosen),
        **profile(LIVES["toward"], lived.toward, chosen),
    })  # fmt: skip


def profile(name: str, values: Float[Tensor, "steps components"], chosen: list[int]) -> dict[str, list[float]]:
    return {f"{name}/{i}": values[:, i].tolist() for i in chosen}


# ---------------------------------------------------------------- on one screen


def show(made: Dynamics, into: Path) -> None:
    """Each curve at its ends, and between which steps it has gone half of its way."""
    table = Table("measure", "first", "last", "halfway at", "unit", title=made.model, title_justify="left", box=None)
    curves = Curves(made.steps, {n: [float("nan") if v is None else v for v in c] for n, c in made.curves.items()})
    for name, values in curves.values.items():
        if "/" not in name:
            finite = len(values) > 1 and all(v == v for v in values)
            half = f"{curves.when(name):,}" if finite else "-"
            ends = [f"{v:.4g}" if v == v else "-" for v in (values[0], values[-1])]
            table.add_row(escape(name), *ends, half, made.units.get(name, ""))
    console = Console()
    console.print(table)
    console.print(made.about, markup=False, highlight=False, soft_wrap=True)
    if made.phases:
        pieces = ", ".join(f"{one.first:,} to {one.last:,}" for one in made.phases)
        console.print(f"straight pieces of {next(iter(made.curves))}: steps {pieces}", markup=False, highlight=False)
    console.print(f"curves and a slider: microtome browse {into}", markup=False, highlight=False, soft_wrap=True)
