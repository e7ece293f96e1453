"""Induction heads come to be all at once, and are made of two heads: one says what came before, one looks for it.

A two-layer network of attention alone learns rows in which random tokens come again with a period of their own. Olsson
et al. 2022, In-context Learning and Induction Heads (arXiv 2209.11895); on composition by keys, Elhage et al. 2021,
A Mathematical Framework for Transformer Circuits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from microtome.circuits.composition import Composition, composition
from microtome.circuits.head_weights import stream_weights
from microtome.circuits.heads import after_copies, attended, attention_scores, before
from microtome.core.edit import Edit, zero
from microtome.core.inputs import Tokens
from microtome.core.measure import token_losses
from microtome.dynamics.in_context import in_context_score
from microtome.dynamics.phases import change
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most
from microtome.toys.induction import AttentionOnly, Repeating, sites

OLSSON, ELHAGE = "Olsson et al. 2022, arXiv 2209.11895", "Elhage et al. 2021"


@dataclass(frozen=True)
class Size:
    """The network, the rows it learns and for how long. `periods`: the shortest and the longest.

    One head in each layer is the smallest network that can do it; with more, several share each part.
    """

    vocabulary: int = 32
    d: int = 64
    heads: int = 1
    length: int = 32
    periods: tuple[int, int] = (6, 16)
    batch: int = 32
    steps: int = 800
    looks: int = 80  # how often the scores are taken
    rate: float = 4e-3


QUICK = Size()
FULL = Size(vocabulary=64, length=64, periods=(8, 32), steps=2000, looks=100, rate=3e-3)


def repeating(size: Size, rows: int, generator: torch.Generator) -> Tokens:
    """Rows of this size."""
    return Repeating(size.vocabulary, size.length, size.periods).draw(rows, generator)


# ---------------------------------------------------------------- what is watched while it learns


class Look(NamedTuple):
    """One look: the mean loss in nats a token, how much lower it is late than early, and the best head's scores."""

    step: int
    loss: float
    in_context: float  # as Olsson et al. score it: negative where context helps
    induction: float
    previous: float


def learning(model: HookedModel, size: Size, held_out: Tokens, generator: torch.Generator) -> Iterator[Look]:
    """Train, and look at it from time to time."""
    optimiser = torch.optim.Adam(model.module.parameters(), lr=size.rate, betas=(0.9, 0.98))
    every = max(1, size.steps // size.looks)
    for step in range(size.steps + 1):
        if step % every == 0:
            yield looked(model, held_out, step)
        ids = repeating(size, size.batch, generator).to(model.device).ids
        loss = F.cross_entropy(model.module(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def looked(model: HookedModel, rows: Tokens, step: int, edit: tuple[Edit, ...] = ()) -> Look:
    """`edit` is made while looking."""
    trace = model.run(rows, edit=edit, read=[*model.sites("pattern.*"), model.site("logits")])
    losses, _ = token_losses(trace)
    where = {"induction": after_copies(rows), "previous": before(rows)}
    best = {n: max(float(attended(trace[s], w).max()) for s in model.sites("pattern.*")) for n, w in where.items()}
    return Look(step, float(losses.mean()), float(in_context_score(losses)), **best)


class Induction(Study):
    name = "induction"
    paper = "Olsson et al. 2022, In-context Learning and Induction Heads, arXiv 2209.11895"
    question = "Do induction heads come to be all at once, and of a head that looks back by one?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        model = network(size, setting)
        held_out = repeating(size, 64, torch.Generator().manual_seed(setting.seed + 1)).to(model.device)
        looks: list[Look] = []
        with watch.stage("learn", size.steps, "steps") as advance:
            for look in learning(model, size, held_out, torch.Generator().manual_seed(setting.seed + 2)):
                looks.append(look)
                advance(look.step)
        last = anatomy(model, held_out)
        return Report(claims(looks, last, size), (Sentence(said(looks, last, size)), chart(looks), table(last)))


STUDY = Induction()


def network(size: Size, setting: Setting) -> HookedModel:
    """The network before it has learnt anything."""
    with torch.random.fork_rng():
        torch.manual_seed(setting.seed)
        return load(AttentionOnly(size.vocabulary, size.d, size.heads, size.length).to(setting.device), sites=sites())


class Anatomy(NamedTuple):
    """How the heads of the network that has learnt are joined, and the induction score without the first."""

    previous: tuple[int, float]  # the head of the first layer that looks back by one most, and how much
    induction: tuple[int, float]  # the head of the second layer that looks for repetitions most
    joined: Composition
    without: float


def anatomy(model: HookedModel, rows: Tokens) -> Anatomy:
    scores = attention_scores(model, rows)
    back, again = int(scores.previous[0].argmax()), int(scores.induction[1].argmax())
    joined = composition(*(stream_weights(model, rows, layer) for layer in (0, 1)))
    without = looked(model, rows, 0, (zero(model.site("z.0").at(head=back)),)).induction
    return Anatomy((back, float(scores.previous[0, back])), (again, float(scores.induction[1, again])), joined, without)


# ---------------------------------------------------------------- what they show


def claims(looks: list[Look], last: Anatomy, size: Size) -> tuple[Claim, ...]:
    curves = {name: [float(getattr(x, name)) for x in looks] for name in ("loss", "in_context", "induction")}
    steps = {name: float(looks[change(curve)].step) for name, curve in curves.items()}
    pair = last.previous[0], last.induction[0]
    q, k, v = (float(scores[pair]) for scores in last.joined[:3])
    near = 0.05 * size.steps
    changed = "step at which {} changes, that of the loss"
    left = last.without / last.induction[1]
    return (
        about(changed.format("prefix matching"), steps["loss"], steps["induction"], tolerance=near, source=OLSSON),
        about(changed.format("in-context learning"), steps["loss"], steps["in_context"], tolerance=near, source=OLSSON),
        at_least("induction score of the best head", 0.8, last.induction[1], source=OLSSON),
        at_least("K-composition of the two heads over the larger of Q and V", 1.1, k / max(q, v), source=ELHAGE),
        at_least("K-composition of the two heads over chance", 1.1, k / last.joined.baseline, source=ELHAGE),
        at_most("share of the induction score left without the previous-token head", 0.25, left, source=OLSSON),
    )


def said(looks: list[Look], last: Anatomy, size: Size) -> str:
    return (
        f"The loss fell from {looks[0].loss:.2f} to {looks[-1].loss:.2f} nats a token; late tokens of a row are "
        f"{-looks[-1].in_context:.2f} nats easier than early ones. Head {last.previous[0]} of the first layer gives "
        f"{last.previous[1]:.0%} of its attention to the token before, head {last.induction[0]} of the second "
        f"{last.induction[1]:.0%} to what followed earlier copies; without the first this is {last.without:.0%}. "
        f"{size.steps:,} steps of {size.batch} rows."
    )


def chart(looks: list[Look]) -> Chart:
    x = [look.step + 1 for look in looks]
    curves = (
        Series("loss", x, [look.loss for look in looks], 0),
        Series("in-context learning, nats", x, [max(0.01, -look.in_context) for look in looks], 1),
        Series("induction score", x, [look.induction for look in looks], 2),
        Series("previous-token score", x, [look.previous for look in looks], 3, "dashed"),
    )
    return Chart("What changes, and when", "steps", "nats, and shares of attention", curves)


def table(last: Anatomy) -> Table:
    pair = last.previous[0], last.induction[0]
    rows = [[way, f"{float(s[pair]):.3f}"] for way, s in zip("QKV", last.joined[:3], strict=True)]
    return Table(("composition", "score"), [*rows, ["chance", f"{last.joined.baseline:.3f}"]], numeric=(1,))
