"""A network that learns addition by heart first, and by trigonometry later.

One layer learns a + b modulo a prime from a third of all pairs. Long after these are known the others are too, because
the network has come to add angles at a few frequencies. Nanda et al. 2023, Progress measures for grokking via
mechanistic interpretability (arXiv 2301.05217).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.dynamics.fourier import gini, power
from microtome.dynamics.frequencies import EXPLAINED, Agreement, agreement, neuron_frequencies
from microtome.dynamics.phases import Phases, phases
from microtome.dynamics.progress import excluded_loss, explained_by_waves, losses, restricted_loss
from microtome.dynamics.record import record
from microtome.dynamics.series import Curves, checkpoints, watched
from microtome.notebook.page import Sentence, Table
from microtome.parameters.spd import SPD
from microtome.store.checkpoint import load_state, save_state
from microtome.store.records import Claim, Stretch
from microtome.store.tensors import read_tensors, write_tensors
from microtome.studies.chart import Chart, Series
from microtome.studies.grokked_parts import BEGINNINGS, METHOD, Parted, parted, taken_apart
from microtome.studies.grokked_parts import claims as claims_of_parts
from microtome.studies.grokked_parts import pieces as pieces_of_parts
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most
from microtome.toys.modular import ModularAddition

NANDA = "Nanda et al. 2023, arXiv 2301.05217"
WARM_UP = 10  # steps
KEPT_MEMORY = 8_000_000  # numbers
KEY_FREQUENCIES = (3.0, 5.0)
PROFILE = "embedding by frequency"
UNITS = dict.fromkeys(("train", "test", "all", "restricted", "excluded"), "nats") | {PROFILE: "length"}


@dataclass(frozen=True)
class Size:
    """The network, what it is trained on, for how long. `share`: of all pairs; `every`: steps between checkpoints."""

    p: int = 113
    d: int = 128
    heads: int = 4
    neurons: int = 512
    share: float = 0.3
    steps: int = 20_000
    every: int = 200
    decay: float = 1.0
    rate: float = 1e-3
    seeds: int = 5
    parts: SPD = METHOD


FULL = Size()
QUICK = Size(
    p=31, d=64, neurons=128, share=0.6, steps=5000, every=100, decay=1.0, seeds=1,
    parts=replace(METHOD, parts=24, steps=1000),
)  # fmt: skip


def network(size: Size, seed: int) -> ModularAddition:
    generator = torch.Generator().manual_seed(seed)
    return ModularAddition(size.p, size.d, size.heads, size.neurons, generator=generator)


def trained_on(size: Size, seed: int) -> Bool[Tensor, "p p"]:
    """Which pairs are trained on; the others are the test."""
    drawn = torch.randperm(size.p**2, generator=torch.Generator().manual_seed(seed + 1_000_003))
    return (drawn < int(size.share * size.p**2)).view(size.p, size.p)


# ---------------------------------------------------------------- training


class Training:
    """Full-batch AdamW, in the paper's numbers. It goes on from `folder` where it was stopped."""

    def __init__(self, size: Size, seed: int, folder: Path) -> None:
        self.size, self.folder, self.model = size, folder, network(size, seed)
        self.step, self.seconds = 0, 0.0
        self.a, self.b = trained_on(size, seed).nonzero().T
        self.answers = (self.a + self.b) % size.p
        weights = list(self.model.parameters())
        self.optimiser = torch.optim.AdamW(
            weights, lr=size.rate, weight_decay=size.decay, betas=(0.9, 0.98), fused=True
        )
        folder.mkdir(parents=True, exist_ok=True)
        torch.empty(KEPT_MEMORY)  # glibc keeps as much from then on; giving it back at each step takes a tenth of it
        if self.state.exists():
            self._resume()

    @property
    def state(self) -> Path:
        """Beside the checkpoints, and not one of them: its name has no number."""
        return self.folder / "training.state"

    def __iter__(self) -> Iterator[int]:
        """Train, and give the step at each checkpoint."""
        while self.step <= self.size.steps:
            if self.step % self.size.every == 0:
                self._save()
                yield self.step
            begun = time.process_time()
            self._one()
            self.seconds += time.process_time() - begun
            self.step += 1

    def _one(self) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.size.rate * min(1.0, (self.step + 1) / WARM_UP)
        loss = against_the_rest(self.model.answers(self.a, self.b), self.answers).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _save(self) -> None:
        write_tensors(self.folder / f"{self.step:06d}.safetensors", dict(self.model.named_parameters()))
        save_state(
            {
                "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
                "seconds": self.seconds,
            }, self.state,
        )  # fmt: skip

    def _resume(self) -> None:
        kept = load_state(self.state)
        self.model.load_state_dict(kept["model"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.step, self.seconds = kept["step"], kept["seconds"]


def against_the_rest(logits: Float[Tensor, "batch p"], right: Int[Tensor, "batch"]) -> Float[Tensor, "batch"]:
    """The cross entropy in nats, written so that in single precision the smallest are exact, and their gradients.

    softplus(log sum of exp(logit - right logit) over the wrong answers): nothing small is taken from 1.
    """
    margins = logits - logits.gather(1, right[:, None])
    return F.softplus(margins.scatter(1, right[:, None], -torch.inf).logsumexp(1))


# ---------------------------------------------------------------- looking


class Inside(NamedTuple):
    """What a network computes on all pairs at "="."""

    logits: Float[Tensor, "p p p"]
    activations: Float[Tensor, "p p neurons"]
    embedding: Float[Tensor, "p d"]
    neuron_logits: Float[Tensor, "p neurons"]


@torch.no_grad()
def inside(model: ModularAddition) -> Inside:
    a, b, _ = model.pairs().T
    mid = model.attended(a, b)
    activations = F.relu(mid @ model.w_in.T + model.b_in)
    square = (model.p, model.p)
    logits = (mid + activations @ model.w_out.T + model.b_out) @ model.unembed.T
    return Inside(
        logits.unflatten(0, square), activations.unflatten(0, square), model.embed.detach()[: model.p],
        model.unembed @ model.w_out,
    )  # fmt: skip


def progress(model: ModularAddition, seen: Bool[Tensor, "p p"], frequencies: list[int]) -> dict[str, float]:
    """The paper's curves at one checkpoint. Losses are in nats."""
    found = inside(model)
    each = losses(found.logits)
    return {
        "train": float(each[seen].mean()), "test": float(each[~seen].mean()), "all": float(each.mean()),
        "restricted": restricted_loss(found.logits, frequencies),
        "excluded": excluded_loss(found.logits, frequencies, seen),
        "gini of embedding": gini(power(found.embedding).sqrt()),
        "gini of outputs": gini(power(found.neuron_logits).sqrt()),
        "squared weights": float(sum(w.detach().square().sum() for w in model.parameters())),
        **{f"{PROFILE}/{k}": size for k, size in enumerate(power(found.embedding).sqrt().tolist(), 1)},
    }  # fmt: skip


class Grown(NamedTuple):
    """One seed's network when it has learnt, and how it came to.

    `of_one_frequency`: the share of all neurons; `of_variance`: the share of all neurons' variance that is in them.
    """

    curves: Curves
    keys: Agreement
    of_one_frequency: float
    of_variance: float
    explained: float
    seconds: float
    phases: Phases | None  # None where it did not grok


def grown(size: Size, seed: int, folder: Path, watch: Watch) -> Grown:
    """Train one seed, or go on, then look at every checkpoint with the key frequencies of the last."""
    training = Training(size, seed, folder)
    with watch.stage(f"train seed {seed}", size.steps, "steps") as advance:
        for step in training:
            advance(step)
    last = inside(training.model)
    keys = agreement(last.activations, last.embedding, last.neuron_logits)
    pure = neuron_frequencies(last.activations).belong(EXPLAINED).float()
    variance = last.activations.flatten(0, 1).var(0)
    curves = followed(size, seed, folder, keys.neurons)
    return Grown(
        curves, keys, float(pure.mean()), float(pure @ variance / variance.sum()),
        explained_by_waves(last.logits, keys.neurons), training.seconds, stages(curves),
    )  # fmt: skip


def followed(size: Size, seed: int, folder: Path, frequencies: list[int]) -> Curves:
    model, seen = network(size, seed), trained_on(size, seed)

    def load(path: Path) -> ModularAddition:
        model.load_state_dict(read_tensors(path))
        return model

    named = "-".join(map(str, frequencies))
    found = [c for c in checkpoints(folder) if c.step <= size.steps]
    *_, curves = watched(found, load, lambda m: progress(m, seen, frequencies), folder / f"measures-of-{named}.jsonl")
    return curves


def kept(one: Grown, size: Size, seed: int, folder: Path) -> None:
    """dynamics.json in a seed's folder: its curves, and the embedding's frequencies, at every checkpoint."""
    ends = one.phases if one.phases is not None and one.phases.in_order else ()
    names = ("memorisation", "circuit formation", "cleanup")
    begins = (0, *ends)
    record(
        one.curves, f"addition modulo {size.p}, seed {seed}", said(one, size), UNITS,
        [Stretch(name=n, first=a, last=b) for n, a, b in zip(names, begins, ends, strict=False)],
        {"seed": seed, "steps": size.steps}, one.seconds,
    ).write(folder)  # fmt: skip


def planes(size: Size, setting: Setting, frequencies: list[int], watch: Watch) -> list[Parted]:
    """The first seed's network as it was in the end, its neurons' weights taken apart from each beginning."""
    model = network(size, setting.seed)
    model.load_state_dict(read_tensors(checkpoints(setting.into / f"seed-{setting.seed}")[-1].path))
    made: list[Parted] = []
    for begun, begin in BEGINNINGS.items():
        with watch.stage(f"take the neurons' weights apart, begun {begun}", size.parts.steps, "steps") as advance:
            found = taken_apart(model, size.parts, begin, setting.seed, advance)
        made += parted(model, found, frequencies, begun)
    return made


def stages(curves: Curves) -> Phases | None:
    try:
        return phases(curves.steps, curves["test"], curves["excluded"])
    except ValueError:
        return None


class Grokking(Study):
    name = "grokking"
    paper = "Nanda et al. 2023, Progress measures for grokking via mechanistic interpretability, arXiv 2301.05217"
    question = "Does a network that groks addition come to add angles, step by step, before the test shows it?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        seeds = range(setting.seed, setting.seed + size.seeds)
        found = {seed: grown(size, seed, setting.into / f"seed-{seed}", watch) for seed in seeds}
        for seed, one in found.items():
            kept(one, size, seed, setting.into / f"seed-{seed}")
        first = found[setting.seed]
        parts = planes(size, setting, first.keys.neurons, watch)
        pieces = (Sentence(said(first, size)), *charts(first), table(found), *pieces_of_parts(parts))
        return Report((*claims(list(found.values()), size), *claims_of_parts(parts)), pieces)


STUDY = Grokking()


# ---------------------------------------------------------------- what they show


def claims(found: list[Grown], size: Size) -> tuple[Claim, ...]:
    """Each about the worst of the seeds."""
    last = [{name: curve[-1] for name, curve in g.curves.values.items()} for g in found]
    counts = [len(g.keys.neurons) for g in found]
    ratio = min(each["excluded"] / max(each["train"], 1e-300) for each in last)
    kept = max(each["restricted"] / each["test"] for each in last)
    ordered = sum(g.phases is not None and g.phases.in_order for g in found) / len(found)
    return (
        at_most("test loss in the end, nats", 1e-2, max(each["test"] for each in last), source=NANDA),
        at_least("key frequencies, fewest of a seed", KEY_FREQUENCIES[0], float(min(counts)), source=NANDA),
        at_most("key frequencies, most of a seed", KEY_FREQUENCIES[1], float(max(counts)), source=NANDA),
        at_least("share of neurons more than 85% one frequency", 0.8, min(g.of_one_frequency for g in found),
                 source=NANDA),
        at_least("logits' variance in cos w(a + b - c)", 0.95, min(g.explained for g in found), source=NANDA),
        at_least("excluded loss over train loss", 1000.0, ratio, source=NANDA),
        at_most("restricted loss over test loss", 1.0, kept, source=NANDA),
        at_least("share of seeds whose phases come in order", 1.0, ordered, source=NANDA),
        at_most(f"processor seconds for {size.steps:,} steps", 1200.0, max(g.seconds for g in found), source="budget"),
    )  # fmt: skip


def said(first: Grown, size: Size) -> str:
    when = "did not grok"
    if first.phases is not None:
        ends = (f"{step:,}" for step in first.phases)
        when = "memorised until step {}, formed its circuit until {} and had cleaned up at {}".format(*ends)
    return (
        f"Addition modulo {size.p} from {size.share:.0%} of the pairs: the first seed {when}. Its key frequencies are "
        f"{first.keys.neurons} by the neurons, {first.keys.embedding} by the embedding and {first.keys.outputs} by the "
        f"map to the logits; {first.of_one_frequency:.0%} of the neurons are explained by one frequency each, and hold "
        f"{first.of_variance:.1%} of all neurons' variance."
    )


def charts(first: Grown) -> tuple[Chart, Chart]:
    """The paper's Figure 7: losses and progress measures, and how unequal frequencies become."""
    x = [step + 1 for step in first.curves.steps]

    def of(name: str, colour: int, least: float = 1e-9) -> Series:
        return Series(name, x, [max(least, value) for value in first.curves[name]], colour)

    losses = [of(name, i) for i, name in enumerate(("train", "test", "restricted", "excluded"))]
    shapes = [of(name, i) for i, name in enumerate(("gini of embedding", "gini of outputs"))]
    return (
        Chart("Loss with and without the key waves", "steps", "nats", losses),
        Chart("How unequal frequencies are", "steps", "Gini coefficient", shapes),
    )


def table(found: dict[int, Grown]) -> Table:
    rows = [
        [str(seed), ", ".join(map(str, g.keys.neurons)), f"{g.of_one_frequency:.3f}", f"{g.of_variance:.3f}",
         f"{g.explained:.3f}",
         f"{g.curves['test'][-1]:.2e}", "-" if g.phases is None else ", ".join(f"{s:,}" for s in g.phases)]
        for seed, g in found.items()
    ]  # fmt: skip
    return Table(
        ("seed", "key frequencies", "neurons of one", "of variance", "explained", "test loss", "phases end"), rows
    )
