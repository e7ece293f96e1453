"""Which of two names comes next: how faithful is a circuit, and how much does the answer depend on who asks?

In "When Mary and John went to the store, John gave a drink to" the next word is Mary. Wang et al. 2022 (arXiv
2211.00593) explain it in GPT-2 by 26 heads, each at its own position, and find that with all other heads at their mean
over prompts of three names 87% of the logit difference is left. Miller et al. 2024 (arXiv 2407.08734) show that this
number is as much the question's as the circuit's: six ways to hold the rest are a mean, another prompt or zero, each
with heads kept at their own positions or at all.

Asked for GPT-2 (`--model gpt2`) the study judges those 26 heads. Otherwise a small transformer is taught the grammar,
its circuit is found by a search, and all that can be said of it is.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.circuits.circuit_run import CircuitRun
from microtome.circuits.circuit_score import Curve, curve
from microtome.circuits.edge_attribution import edge_attribution
from microtome.circuits.games import EdgeGame
from microtome.circuits.gradient_paths import AlongInputs
from microtome.circuits.heads import name_movers
from microtome.circuits.wiring import wiring
from microtome.core.edit import Edit, function
from microtome.core.errors import Absent, Refusal
from microtome.core.inputs import Tokens
from microtome.core.model import Resumable
from microtome.core.trace import Trace
from microtome.data.pairs import Pairs, Prompt, tokenized
from microtome.data.tasks import aligned_pairs
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most
from microtome.studies.taught import taught
from microtome.toys.talker import WORD, Lessons

WANG, MILLER = "Wang et al. 2022, arXiv 2211.00593", "Miller et al. 2024, arXiv 2407.08734"
MIB = "Mueller et al. 2025, arXiv 2504.13151"
END, SECOND, AFTER_FIRST = "end", "second mention", "token after the first mention"  # of the subject
FIRST, ANSWER = "first mention", "answer's mention"
HOLDS = ("mean", "resample", "zero")
DEMO = (  # eight prompts on which a logit difference of 3.5 is often quoted
    ("When{} and{} went to the shops,{} gave the bag to", " Mary", " John"),
    ("When{} and{} went to the park,{} gave the ball to", " Tom", " James"),
    ("When{} and{} went to the shops,{} gave an apple to", " Dan", " Sid"),
    ("After{} and{} went to the park,{} gave a drink to", " Martin", " Amy"),
)
GPT2_HEADS = {
    END: "9.9 10.0 9.6 10.10 10.6 10.2 10.1 11.2 9.7 9.0 11.9 10.7 11.10 7.3 7.9 8.6 8.10",
    SECOND: "5.5 5.8 5.9 6.9 0.1 0.10 3.0",
    AFTER_FIRST: "2.2 4.11",
}  # name movers, backup and negative ones, S-inhibition; induction, duplicate token; previous token


class Kept(NamedTuple):
    """One head at one of the places: what a circuit is made of."""

    layer: int
    head: int
    place: str

    def __str__(self) -> str:
        return f"a{self.layer}.h{self.head} at the {self.place}"


@dataclass(frozen=True)
class Size:
    """The toy's lessons, how many pairs are looked at, and the share of the measure that a circuit may lose."""

    lessons: Lessons = field(default_factory=partial(Lessons, steps=1500))
    pairs: int = 200
    lost: float = 0.1
    draws: int = 50  # of random circuits
    edge_pairs: int = 48


FULL, QUICK = Size(), Size(lessons=Lessons(steps=900), pairs=100, draws=20, edge_pairs=16)


class IOI(Study):
    name = "ioi"
    paper = "Wang et al. 2022, arXiv 2211.00593; Miller et al. 2024, arXiv 2407.08734"
    question = "How faithful is the circuit that chooses between two names, and how much does that depend on who asks?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        generator = torch.Generator().manual_seed(setting.seed)
        if setting.model == "specimen":
            talker = taught("ioi", size.lessons, setting.seed, setting.into, watch)
            return of_toy(talker.model, talker.pairs(size.pairs, generator), size, generator, watch)
        return of_gpt2(reached(setting), size, generator)


STUDY = IOI()


def reached(setting: Setting) -> HookedModel:
    """The model that was asked for. Raises Absent where it cannot be reached."""
    try:
        return load(setting.model, device=setting.device)
    except Refusal as refused:
        raise Absent(
            f"this study needs GPT-2 when it is asked of {setting.model!r}, and {refused}; without --model it teaches "
            "a small transformer instead"
        ) from None


def named(head: str, place: str) -> Kept:
    """Layer and head as papers write them: 9.6."""
    layer, number = head.split(".")
    return Kept(int(layer), int(number), place)


def of_gpt2(model: HookedModel, size: Size, generator: torch.Generator) -> Report:
    """The 26 heads, judged."""
    pairs = aligned_pairs("ioi", size.pairs, model.encode, generator)
    circuit = [named(head, place) for place, heads in GPT2_HEADS.items() for head in heads.split()]
    found = Judged.of(model, pairs, circuit, size, generator)
    demo = tokenized(demo_prompts(), model.encode)
    difference = float(demo.logit_difference()(model.run(demo.clean)).mean())
    known = {(k.layer, k.head) for k in circuit[:3]}
    first = [divmod(i, found.movers.shape[1]) for i in found.movers.flatten().argsort(descending=True)[:3].tolist()]
    return Report(
        (
            about("logit difference on the eight prompts", 3.5, difference, tolerance=0.1, source=WANG),
            at_least("share of prompts answered rightly", 0.98, found.right, source=WANG),
            about("faithfulness of the 26 heads, at their own positions, others at their mean", 0.87,
                  found.faithfulness["mean", False], tolerance=0.03, source=WANG),
            at_least("of the three heads that raise the answer most, those that are name movers", 2,
                     len(known & set(first)), source=WANG),
            spread_claim(found),
        ),
        (Sentence(said(found)), *six(found)),
    )  # fmt: skip


def demo_prompts() -> Iterator[Prompt]:
    for text, one, other in DEMO:
        for subject, answer in ((one, other), (other, one)):
            yield Prompt(text.format(one, other, subject), text.format(one, other, answer), (answer,), (subject,))


def of_toy(model: HookedModel, pairs: Pairs, size: Size, generator: torch.Generator, watch: Watch) -> Report:
    """What can be said of a network that was taught the grammar."""
    circuit = discovered(model, pairs, size, generator)
    watch.say(f"{len(circuit)} heads at their tokens: {', '.join(map(str, circuit))}")
    found = Judged.of(model, pairs, circuit, size, generator)
    corrupt = float(pairs.logit_difference()(model.run(pairs.corrupt)).mean())
    edges, chance = by_edges(model, pairs.rows(slice(0, size.edge_pairs)), generator)
    watch.say(f"edges: CPR {edges.cpr:.2f}, CMD {edges.cmd:.2f}; of random edges {chance.cpr:.2f}, {chance.cmd:.2f}")
    return Report(
        toy_claims(found, corrupt, edges, chance),
        (Sentence(said(found)), *six(found), Heading("The circuit"), circuit_table(circuit, pairs),
         edge_chart(edges, chance)),
    )  # fmt: skip


# ---------------------------------------------------------------- where things stand, and what is put there


def places_of(pairs: Pairs) -> dict[str, Int[Tensor, "pairs"]]:
    """The column of each place in each clean row: those that have a name, and every token by its number."""
    ids, rows = pairs.clean.ids, torch.arange(len(pairs))
    subject = (ids == pairs.wrong[:, None]) & pairs.clean.mask
    columns = torch.arange(ids.shape[1], device=ids.device)
    first, second = subject.int().argmax(1), torch.where(subject, columns, -1).amax(1)
    end = torch.where(pairs.clean.mask, columns, -1).amax(1)
    answer = ((ids == pairs.right[:, None]) & pairs.clean.mask).int().argmax(1)
    assert subject[rows, first].all()
    return {
        END: end, SECOND: second, AFTER_FIRST: first + 1, FIRST: first, ANSWER: answer,
        **{f"token {i}": torch.full_like(end, i) for i in range(ids.shape[1])},
    }  # fmt: skip


def three_names(pairs: Pairs, generator: torch.Generator) -> Tokens:
    """The clean prompts with three different names drawn anew, so that none comes again."""
    ids, names = pairs.clean.ids.clone(), torch.cat((pairs.right, pairs.wrong)).unique()
    drawn = torch.stack([names[torch.randperm(len(names), generator=generator)[:3]] for _ in range(len(pairs))])
    rows, at = torch.arange(len(pairs)), places_of(pairs)
    for i, columns in enumerate((at[ANSWER], at[FIRST], at[SECOND])):
        ids[rows, columns] = drawn[:, i]
    return Tokens(ids, pairs.clean.mask)


def outside(found: Trace, how: str) -> Trace:
    """What heads that are not kept hold: their mean by position, what they hold on the other prompt, or nothing."""
    if how == "resample":
        return found
    values = {
        s.name: torch.zeros_like(found[s]) if how == "zero" else found[s].mean(0, keepdim=True).expand_as(found[s])
        for s in found.sites
    }
    return Trace(found.inputs, values, found.sites_by_name)


def held(other: Trace, circuit: list[Kept], pairs: Pairs, everywhere: bool) -> list[Edit]:
    """Every head holds what it holds in the other run, but for those of the circuit, at their places or everywhere."""
    at, rows = places_of(pairs), torch.arange(len(pairs))
    edits: list[Edit] = []
    for site in other.sites:
        keep = torch.zeros(other[site].shape[:3], dtype=torch.bool, device=other[site].device)
        for kept in (k for k in circuit if k.layer == site.layer):
            if everywhere:
                keep[:, :, kept.head] = True
            else:
                keep[rows, at[kept.place], kept.head] = True
        edits.append(function(site, partial(where, keep, other[site])))
    return edits


def where(keep: Bool[Tensor, "batch pos head"], other: Tensor, here: Tensor) -> Tensor:
    return torch.where(keep[..., None], here, other)


# ---------------------------------------------------------------- how faithful


@dataclass(frozen=True, eq=False)
class Judged:
    """A circuit of heads: what is left of the logit difference when all others are held, in six ways.

    `faithfulness` goes by how others are held and whether heads are kept at all positions. `by_chance`: random circuits
    of as many heads at the same places, others at their mean.
    """

    size: int
    difference: float
    right: float
    faithfulness: dict[tuple[str, bool], float]
    by_chance: Float[Tensor, "draws"]
    movers: Float[Tensor, "layer head"]
    attention: float

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: Resumable, pairs: Pairs, circuit: list[Kept], size: Size, generator: torch.Generator
    ) -> "Judged":
        measure = pairs.logit_difference()
        whole = measure(model.run(pairs.clean, read=measure.reads))
        found = model.run(three_names(pairs, generator), read=model.sites("z.*"))
        layers, heads = len(found.sites), found[found.sites[0]].shape[2]

        def share(kept: list[Kept], how: str, everywhere: bool) -> float:
            return left(model, pairs, held(outside(found, how), kept, pairs, everywhere)) / float(whole.mean())

        chance = [share(shuffled(circuit, layers, heads, generator), "mean", False) for _ in range(size.draws)]
        movers = name_movers(model, pairs.clean, pairs.right, pairs.wrong)
        return cls(
            len(circuit), float(whole.mean()), float((whole > 0).float().mean()),
            {(how, all_): share(circuit, how, all_) for how in HOLDS for all_ in (False, True)},
            torch.tensor(chance), movers.direct_logit,
            float(movers.attention.flatten()[movers.direct_logit.argmax()]),
        )  # fmt: skip


def shuffled(circuit: list[Kept], layers: int, heads: int, generator: torch.Generator) -> list[Kept]:
    """As many heads at the same places, drawn at random."""
    places = [k.place for k in circuit]
    order = torch.randint(layers * heads, (len(circuit),), generator=generator).tolist()
    return [Kept(i // heads, i % heads, place) for i, place in zip(order, places, strict=True)]


@torch.no_grad()
def discovered(model: Resumable, pairs: Pairs, size: Size, generator: torch.Generator) -> list[Kept]:
    """Heads at tokens, one after the other left out for their mean as long as little of the difference is lost.

    From the last layer and the last token to the first, as ACDC goes (Conmy et al. 2023, arXiv 2304.14997).
    """
    found = model.run(three_names(pairs, generator), read=model.sites("z.*"))
    means, heads = outside(found, "mean"), range(found[found.sites[0]].shape[2])
    tokens = range(pairs.clean.ids.shape[1])
    circuit = [Kept(s.layer or 0, h, f"token {t}") for s in found.sites for t in tokens for h in heads]
    whole = left(model, pairs, [])
    for kept in reversed(list(circuit)):
        tried = [k for k in circuit if k != kept]
        if abs(left(model, pairs, held(means, tried, pairs, everywhere=False)) / whole - 1) <= size.lost:
            circuit = tried
    return circuit


def left(model: Resumable, pairs: Pairs, edits: list[Edit]) -> float:
    """The mean logit difference under some edits."""
    measure = pairs.logit_difference()
    return float(measure(model.run(pairs.clean, read=measure.reads, edit=edits)).mean())


def by_edges(model: Resumable, pairs: Pairs, generator: torch.Generator) -> tuple[Curve, Curve]:
    """MIB's curve of faithfulness, of edges ranked by EAP-IG and of edges in random order."""
    measure, wired = pairs.logit_difference(), wiring(model, pairs.clean)
    scores = edge_attribution(model, pairs.clean, pairs.corrupt, measure, AlongInputs(5), wired=wired).scores
    game = EdgeGame(CircuitRun(wired, pairs.clean, pairs.corrupt, measure))
    ranked = scores[wired.anatomy.possible].abs()
    return curve(ranked, game), curve(torch.rand(len(ranked), generator=generator), game)


# ---------------------------------------------------------------- what they show


def spread_claim(found: Judged) -> Claim:
    values = found.faithfulness.values()
    return at_least(
        "faithfulness by the six ways, largest less smallest", 0.1, max(values) - min(values), source=MILLER
    )


def toy_claims(found: Judged, corrupt: float, edges: Curve, chance: Curve) -> tuple[Claim, ...]:
    own = found.faithfulness["mean", False]
    return (
        at_least("share of prompts answered rightly", 0.99, found.right, source=WANG),
        about("logit difference on corrupt prompts over that on clean ones", -1.0, corrupt / found.difference,
              tolerance=0.15, source="the corrupt prompt exchanges the two names"),
        at_least("faithfulness of the heads, at their own positions, others at their mean", 0.84, own, source=WANG),
        at_most("the same of random heads, mean", 0.5, float(found.by_chance.mean()), source=WANG),
        spread_claim(found),
        at_least("CPR of edges by EAP-IG beyond random ones", 0.3, edges.cpr - chance.cpr, source=MIB),
        at_least("CMD of random edges beyond those by EAP-IG", 0.3, chance.cmd - edges.cmd, source=MIB),
    )  # fmt: skip


def said(found: Judged) -> str:
    mover = f"The head that raises the answer most gives it {found.attention:.0%} of its attention."
    return (
        f"The logit difference is {found.difference:.2f}, and the right name is first in {found.right:.1%} of prompts. "
        f"{found.size} heads at their positions leave {found.faithfulness['mean', False]:.0%} of it with all others at "
        f"their mean over prompts of three names; random ones leave {float(found.by_chance.mean()):.0%}. {mover}"
    )


def six(found: Judged) -> tuple[Heading, Table]:
    """The six numbers."""
    rows = [[how, *(f"{found.faithfulness[how, all_]:.1%}" for all_ in (False, True))] for how in HOLDS]
    return Heading("Six ways to ask"), Table(
        ("other heads hold", "kept at their positions", "kept at all positions"), rows, "Faithfulness", numeric=(1, 2)
    )


def circuit_table(circuit: list[Kept], pairs: Pairs) -> Table:
    """Each head and the tokens at which it is needed, as they stand in the first prompt."""
    words = ["(begin)", *WORD.findall(pairs.prompts[0].clean)]
    heads = sorted({(k.layer, k.head) for k in circuit})
    where = {h: [int(k.place.split()[1]) for k in circuit if (k.layer, k.head) == h] for h in heads}
    rows = [[f"a{la}.h{h}", " ".join(f"{words[t].strip()} ({t})" for t in sorted(where[la, h]))] for la, h in heads]
    return Table(("head", "needed at, in a prompt such as the first"), rows)


def edge_chart(edges: Curve, chance: Curve) -> Chart:
    series = [
        Series("by EAP-IG", edges.shares, edges.faithfulness.clamp(min=0.01).tolist()),
        Series("at random", chance.shares, chance.faithfulness.clamp(min=0.01).tolist(), 1, "dashed"),
    ]
    return Chart("Faithfulness of the best edges", "share of edges", "share of the logit difference", series)
