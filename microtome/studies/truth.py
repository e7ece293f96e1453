"""Latent knowledge: is truth found without labels, and what else is taken for it?

Burns et al. 2022 (arXiv 2212.03827) find directions along which opposite answers stand opposite. Farquhar et al. 2023
(arXiv 2312.10029) show that anything else which is opposite in opposite answers is found as well, and Levinstein &
Herrmann 2023 (arXiv 2307.00175) that what was found on statements may fail on negated ones. Here the truth is known:
first planted in vectors, then in small networks that were taught facts and judge answers about them.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.core.inputs import Tokens
from microtome.core.logistic import least_loss
from microtome.directions.contrast import Contrast, Finder, logistic_direction, mean_difference, whitened
from microtome.directions.erasure import erase, erased_concept
from microtome.directions.held_out import Judged, judged
from microtome.directions.latent_knowledge import LatentKnowledge, ccs, crc, vinc
from microtome.directions.pairs_of_answers import AnswerPairs
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most
from microtome.toys.statements import Listener, Statements, World

BURNS, FARQUHAR = "Burns et al. 2022, arXiv 2212.03827", "Farquhar et al. 2023, arXiv 2312.10029"
LEACE = "Belrose et al. 2023, arXiv 2306.03819"
OURS = "known by construction"
D, PER_SIDE, SIGNAL, SIZE = 256, 200, 2.0, 7.2  # of planted contrasts: in noise of this size along its largest axis


@dataclass(frozen=True)
class Size:
    """How much is planted, what the networks learn, how many statements they are asked, and how long CCS searches."""

    contrasts: int = 20
    questions: int = 4000
    layers: int = 4
    world: World = field(default_factory=World)
    statements: int = 2000
    erased: int = 20_000
    epochs: int = 1000
    restarts: int = 10


FULL = Size()
QUICK = Size(20, 400, 1, World(things=16, steps=1000), 600, epochs=300)


class Truth(Study):
    name = "truth"
    paper = "Burns et al. 2022, Discovering Latent Knowledge in Language Models Without Supervision, arXiv 2212.03827"
    question = "Is what a network holds true found without labels, and what else is taken for it?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        generator = torch.Generator().manual_seed(setting.seed)
        cosines = planted_cosines(size, generator)
        vectors = [
            searched(f"{name} in vectors", *planted_answers(size, distractor, generator), size, generator)
            for name, distractor in (("truth", 0.0), ("truth and a distractor", 1.0))
        ]
        listeners = [taught(size.world, setting.seed, echoes, watch) for echoes in (False, True)]
        said = listeners[0].drawn(size.statements, generator)
        networks = [heard(listener, said, size, generator) for listener in listeners]
        probes = probed(listeners[0], size, generator)
        return Report(
            claims(cosines, vectors, networks, probes, listeners, said),
            pieces(cosines, vectors, networks, probes, said, listeners[0]),
        )


STUDY = Truth()


# ---------------------------------------------------------------- planted in vectors


def planted_cosines(size: Size, generator: torch.Generator) -> dict[str, float]:
    """Mean cosines of found directions with planted ones. Noise falls along its axes as the inverse of their rank."""
    finders, found = {"mean difference": mean_difference, "whitened": whitened}, {}
    for _ in range(size.contrasts):
        truth = torch.randn(D, generator=generator)
        truth = truth / truth.norm()
        axes = torch.linalg.qr(torch.randn(D, D, generator=generator))[0] * (SIZE / torch.arange(1, D + 1))
        noise = [torch.randn(PER_SIDE, D, generator=generator) @ axes.T for _ in range(2)]
        contrast = Contrast(noise[0] + SIGNAL / 2 * truth, noise[1] - SIGNAL / 2 * truth)
        for name, find in finders.items():
            found[name] = found.get(name, 0.0) + float(find(contrast) @ truth) / size.contrasts
    return found


def planted_answers(
    size: Size, distractor: float, generator: torch.Generator
) -> tuple[AnswerPairs, Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """Answers opposite along a truth direction, and along a distractor's of such a strength; and both labels."""
    n, shape = size.questions, (size.layers, D)
    directions = torch.nn.functional.normalize(torch.randn(2, *shape, generator=generator), dim=-1)
    labels = torch.rand(2, n, generator=generator) < 0.5
    signs = 2 * labels.float() - 1
    strengths = torch.tensor([1.0, distractor])
    signal = 2 * torch.einsum("s,sn,sld->nld", strengths, signs, directions)
    topic = 0.5 * torch.randn(n, *shape, generator=generator)
    yes, no = (topic + side * (signal + 1) + 0.2 * torch.randn(n, *shape, generator=generator) for side in (1, -1))
    return AnswerPairs(yes, no), labels[0], labels[1]


# ---------------------------------------------------------------- in networks


def taught(world: World, seed: int, echoes: bool, watch: Watch) -> Listener:
    listener = Listener(world, seed, echoes=echoes)
    what = "a network that also echoes a word" if echoes else "a network"
    with watch.stage(f"teach {what}", world.steps, "steps") as advance:
        for step, _ in enumerate(listener.learning(), 1):
            advance(step)
    listener.model.module.requires_grad_(False)
    return listener


def streams(listener: Listener, ids: Int[Tensor, "n 6"]) -> Float[Tensor, "n layers d"]:
    """The stream behind each block, at the answer."""
    sites = listener.model.sites("resid_post.*")
    trace = listener.model.run(Tokens.of(ids), read=sites)
    return torch.stack([trace[site][:, -1] for site in sites], 1)


def asked(listener: Listener, said: Statements) -> AnswerPairs:
    """Both answers to every statement. A network that echoes is shown one word before yes, the other before no."""
    words = (said.word, ~said.word if listener.echoes else said.word)
    yes, no = (
        streams(listener, listener.tokens(said, torch.full((len(said),), answer), word))
        for answer, word in zip((True, False), words, strict=True)
    )
    return AnswerPairs(yes, no)


class Searched(NamedTuple):
    """What was found on half of the questions, and how right it is about the other half, layer by layer: about the
    truth and about the distractor, each oriented by labels of the first half."""

    name: str
    found: LatentKnowledge
    truth: list[float]
    distractor: list[float]
    verdicts: list[str]
    beside: dict[str, list[float]]
    agreement: list[float]


def searched(
    name: str,
    pairs: AnswerPairs,
    true: Bool[Tensor, "n"],
    distractor: Bool[Tensor, "n"],
    size: Size,
    generator: torch.Generator,
    learned: Bool[Tensor, "n"] | None = None,
) -> Searched:
    """CCS, and beside it CRC, VINC and, with labels, mean differences and logistic regressions."""
    first = torch.arange(len(pairs)) < len(pairs) // 2 if learned is None else learned
    mine, others = pairs.questions(first), pairs.questions(~first)
    found = ccs(mine, restarts=size.restarts, epochs=size.epochs, generator=generator)

    def right(of: LatentKnowledge, label: Tensor) -> list[float]:
        return of.orient(mine, label[first]).accuracy(others, label[~first]).tolist()

    beside = {"CRC": right(crc(mine), true), "VINC": right(vinc([mine]), true)}
    layers = mine.yes.shape[1]
    labelled = {"mean difference, with labels": whitened, "logistic, with labels": logistic_direction}
    for label, find in labelled.items():
        beside[label] = [ceiling(mine, others, true[first], true[~first], layer, find) for layer in range(layers)]
    return Searched(name, found, right(found, true), right(found, distractor), list(found.verdict(others)), beside,
                    found.agreement(others).tolist())  # fmt: skip


def ceiling(mine: AnswerPairs, others: AnswerPairs, known: Tensor, true: Tensor, layer: int, find: Finder) -> float:
    """How right a direction is that was found with labels, on differences of the answers."""
    contrast = Contrast.of(mine.difference[:, layer], known)
    said = (others.difference[:, layer] - contrast.middle) @ find(contrast) > 0
    return float((said == true).float().mean())


def heard(listener: Listener, said: Statements, size: Size, generator: torch.Generator) -> Searched:
    """What is found in a network, on statements about half of the things, and judged on those about the others."""
    name = "a network that echoes a word as well" if listener.echoes else "a network that judges answers"
    about_half = said.thing < listener.world.things // 2
    return searched(name, asked(listener, said), said.true, said.word, size, generator, about_half)


def negation(found: Searched, listener: Listener, said: Statements) -> float:
    """How right what was found on plain and negated statements of half of the things is on negated ones of the rest."""
    others = said.where((said.thing >= listener.world.things // 2) & said.negated)
    mine = said.where(said.thing < listener.world.things // 2)
    oriented = found.found.orient(asked(listener, mine), mine.true)
    return float(oriented.accuracy(asked(listener, others), others.true)[-1])


class Probes(NamedTuple):
    """A probe of the last stream for whether the answer is right, held out by thing; and how much a logistic regression
    knows of it where it was erased, eraser, regression and test each on rows of their own."""

    held_out: Judged
    erased: float


def probed(listener: Listener, size: Size, generator: torch.Generator) -> Probes:
    site = listener.model.sites("resid_post.*")[-1]

    def drawn(n: int) -> tuple[Statements, Tensor, Tensor]:
        said = listener.drawn(n, generator)
        yes = torch.rand(n, generator=generator) < 0.5
        return said, streams(listener, listener.tokens(said, yes))[:, -1], said.true == yes

    said, x, right = drawn(size.statements)
    held_out = judged(x, right, said.thing, whitened, generator=generator)
    (_, mine, known), *parts = (drawn(size.erased) for _ in range(3))
    concept = erased_concept(site, mine, known[:, None].to(mine.dtype)).requires_grad_(False)
    learned, tested = ((erase(concept, rows), label) for _, rows, label in parts)
    return Probes(held_out, sure_and_right(learned, tested))


def sure_and_right(learned: tuple[Tensor, Tensor], tested: tuple[Tensor, Tensor]) -> float:
    """The mean probability that a logistic regression of some rows gives to what is true of others."""
    (x, known), (others, true) = learned, tested
    centre, spread = x.mean(0), x.std(0).clamp(min=1e-8)
    share = x.new_full((len(x),), 1 / len(x))
    weight, bias = least_loss((x - centre) / spread, known[:, None].to(x.dtype), share, decay=1e-4, steps=200)
    says_so = torch.sigmoid(((others - centre) / spread @ weight + bias)[:, 0])
    return float(torch.where(true, says_so, 1 - says_so).mean())


# ---------------------------------------------------------------- what they show


def claims(
    cosines: dict[str, float],
    vectors: list[Searched],
    networks: list[Searched],
    probes: Probes,
    listeners: list[Listener],
    said: Statements,
) -> tuple[Claim, ...]:
    (plain, both), (judges, echoes) = vectors, networks
    shuffled, planted = probes.held_out.shuffled, "cosine with a planted direction at signal 2"
    labelled = echoes.beside["logistic, with labels"]
    either = min(map(max, zip(both.truth, both.distractor, strict=True)))
    return (
        at_least(f"{planted}, mean difference", 0.88, cosines["mean difference"], source=OURS),
        at_least(f"{planted}, whitened", 0.95, cosines["whitened"], source=OURS),
        at_least("CCS on planted truth, the layer that is least right", 0.99, min(plain.truth), source=BURNS),
        at_least("with a distractor as strong, share of layers called ambiguous", 1.0, share(both, "ambiguous"),
                 source=FARQUHAR),
        at_least("with it, CCS about the better of the two, the layer that is least right", 0.99, either,
                 source=FARQUHAR),
        at_least("CCS in a network, last layer, on things not learned from", 0.95, judges.truth[-1], source=BURNS),
        at_least("the same on negated statements", 0.95, negation(judges, listeners[0], said), source=OURS),
        at_least("a network that holds a word as firmly, last layer, called ambiguous", 1.0,
                 float(echoes.verdicts[-1] == "ambiguous"), source=FARQUHAR),
        at_least("a labelled probe of that network, last layer", 0.95, labelled[-1], source=OURS),
        at_most("area under the curve with shuffled labels, lower end of 95%", 0.5, shuffled.low, source=OURS),
        at_least("area under the curve with shuffled labels, upper end of 95%", 0.5, shuffled.high, source=OURS),
        at_most("how far a probe is from one half after erasure", 0.02, abs(probes.erased - 0.5), source=LEACE),
    )  # fmt: skip


def share(found: Searched, verdict: str) -> float:
    return sum(v == verdict for v in found.verdicts) / len(found.verdicts)


def pieces(
    cosines: dict[str, float],
    vectors: list[Searched],
    networks: list[Searched],
    probes: Probes,
    said: Statements,
    listener: Listener,
) -> tuple[Chart | Heading | Sentence | Table, ...]:
    named = ", ".join(f"{name} {value:.3f}" for name, value in cosines.items())
    read = probes.held_out
    return (
        Sentence(f"Cosines with planted directions: {named}."),
        *(table(found) for found in vectors),
        Heading("In networks that were taught facts"),
        Sentence(
            f"{len(said)} statements about {listener.world.things} things; directions are found on half of the things "
            f"and judged on the others. A labelled probe of whether an answer is right, held out by thing, has an area "
            f"of {read.area.found:.3f} ({read.area.low:.3f} to {read.area.high:.3f}), with shuffled labels "
            f"{read.shuffled.found:.3f} ({read.shuffled.low:.3f} to {read.shuffled.high:.3f}), with Gaussian features "
            f"{read.random_features.found:.3f}. After erasure a regression gives {probes.erased:.3f} to what is true."
        ),
        *(table(found) for found in networks),
        *(chart(found) for found in networks),
    )


def rows_of(found: Searched) -> Iterator[list[str]]:
    for layer, verdict in enumerate(found.verdicts):
        figures = (found.truth, found.distractor, found.agreement, *found.beside.values())
        yield [str(layer), *(f"{each[layer]:.3f}" for each in figures), verdict]


def table(found: Searched) -> Table:
    heads = (
        f"layer: {found.name}",
        "CCS about truth",
        "CCS about the distractor",
        "restarts agree",
        *found.beside,
        "verdict",
    )
    return Table(heads, list(rows_of(found)), numeric=tuple(range(1, len(heads) - 1)))


def chart(found: Searched) -> Chart:
    """How right each method is, by layer."""
    layers = [float(i + 1) for i in range(len(found.truth))]
    lines = {"CCS": found.truth, "CCS, about the word": found.distractor, **found.beside}
    series = [Series(name, layers, [max(v, 0.01) for v in values], i) for i, (name, values) in enumerate(lines.items())]
    return Chart(found.name, "layer", "share right on things not learned from", series)
