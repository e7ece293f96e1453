"""A classifier learns a cue that it should not use, and is freed of it by removing the latents that carry the cue.

Rows are two pieces of Python from different places. The wanted label is whether the first mentions `self`, the cue
whether the second holds numbers or an import. While the classifier learns the two always agree; when it is judged they
do not. An autoencoder of the same activations names what the verdict rests on, text with numbers and text with imports
say which of these latents are about the one or the other, and they are ablated. Marks et al. 2024, Sparse Feature
Circuits (arXiv 2403.19647), section 4, with its controls: as many latents drawn at random, a bottleneck of latents that
are not about the cue, and a classifier that learned where the cue says nothing.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.circuits.feature_circuits import FeatureNode, NodeEffects, attributed, together
from microtome.circuits.shift import Verdicts, classifier, judged, pooled, verdict, without
from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.windows import gather, pieces
from microtome.dictionaries import recipes
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.material import harvested, read
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most

MARKS = "Marks et al. 2024, arXiv 2403.19647, section 4"
ABOUT = 0.75  # of a latent's activity on numbers and on imports, what falls on one of them if it is about the cue
MORE = 1.5  # times as active there as on other text
DRAWS = 5  # of random latents


@dataclass(frozen=True)
class Size:
    """How much is read and how large the autoencoder is. `rows`: of each kind of the four, for each purpose."""

    tokens: int = 500_000
    width: int = 2048
    k: int = 32
    piece: int = 12
    rows: int = 400
    strongest: int = 200  # latents whose effects on the verdict are looked at
    read: int = 6000  # windows that pieces are taken from, at most
    rate: float = 1e-3
    layer: int = 2


FULL, QUICK = Size(), Size(tokens=100_000, width=512, k=16, rows=150, read=1200)


class Rows(NamedTuple):
    """Rows of two pieces, whether the first has what is wanted, and whether the second has the cue."""

    tokens: Tokens
    wanted: Bool[Tensor, "rows"]
    cue: Bool[Tensor, "rows"]

    @property
    def groups(self) -> Int[Tensor, "rows"]:
        return 2 * self.wanted.long() + self.cue.long()

    def where(self, which: Bool[Tensor, "rows"]) -> "Rows":
        return Rows(Tokens.of(self.tokens.ids[which]), self.wanted[which], self.cue[which])


class Material(NamedTuple):
    """Rows in which wanted and cue agree, and rows in which they do not; each to learn from and to be judged on."""

    ambiguous: Rows
    balanced: Rows
    judged: Rows


class Entrant(NamedTuple):
    """A classifier's accuracy on the wanted label, how often it says what the cue says, and its worst group."""

    name: str
    wanted: float
    cue: float
    worst: float


class Shift(Study):
    name = "shift"
    paper = "Marks et al. 2024, Sparse Feature Circuits, arXiv 2403.19647, section 4"
    question = "Is a classifier freed of a cue by removing the latents that carry it?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        model = load(setting.model, device=setting.device)
        site = model.site(f"resid_post.{size.layer}")
        sae = learned(model, site, size, setting, watch)
        material = drawn(model, size, setting)
        watch.say(f"{len(material.ambiguous.tokens)} rows to learn from, {len(material.judged.tokens)} to be judged on")
        removal = Removal.of(model, site, sae, material, size)
        watch.say(f"{len(removal.removed)} of the {size.strongest} strongest latents are about the cue")
        entrants = contest(model, site, sae, material, removal, torch.Generator().manual_seed(setting.seed))
        return Report(claims(entrants, len(removal.removed)),
                      (Sentence(said(entrants, removal, size)), chart(removal), table(entrants)))  # fmt: skip


STUDY = Shift()


# ---------------------------------------------------------------- the autoencoder and the rows


def learned(model: HookedModel, site: Site, size: Size, setting: Setting, watch: Watch) -> Dictionary:
    """A TopK autoencoder of the site."""
    acts = harvested(model, [site], setting, "train", size.tokens, watch).at(site)
    generator = torch.Generator().manual_seed(setting.seed)
    recipe = recipes.topk(site, acts.sample(10_000, setting.seed), size.width, size.k, generator)
    batch, steps = 1024, len(acts) // 1024
    schedule = WarmUp(20) * Linear(steps // 2, steps + 1)
    learning = fit(recipe.dictionary, acts.batches(batch, seed=setting.seed), recipe.objective, lr=size.rate,
                   clip=1.0, schedule=schedule)  # fmt: skip
    with watch.stage("fit", steps, "steps") as advance:
        for step in learning:
            advance(step.index)
            if step.index == steps:
                break
    return recipe.dictionary


def drawn(model: HookedModel, size: Size, setting: Setting) -> Material:
    """Rows of held-out text. Pieces for learning and for judging come from different documents' windows."""
    text = gather(read(model, setting, "held_out"), size.read).tokens
    half, generator = len(text) // 2, torch.Generator().manual_seed(setting.seed)
    learning, judging = (cut(model, part, size, generator) for part in (text[:half], text[half:]))
    ambiguous = learning.where(learning.wanted == learning.cue)
    return Material(ambiguous, learning, judging)


def cut(model: HookedModel, text: Int[Tensor, "windows context"], size: Size, generator: torch.Generator) -> Rows:
    """Rows of all four kinds, equally many."""
    first = text[:, 1:].unfold(1, size.piece, size.piece).flatten(0, 1)
    said = [set(p.strip() for p in pieces(model.tokenizer, row)) for row in first.tolist()]
    selves = torch.tensor(["self" in words for words in said])
    digits = torch.tensor([sum(w.isdigit() for w in words) for words in said])
    imports = torch.tensor(["import" in words for words in said])
    neither = (digits == 0) & ~imports
    with_self, without_self = first[selves & neither], first[~selves & neither]
    with_numbers, with_imports = first[(digits >= 2) & ~selves & ~imports], first[(digits == 0) & ~selves & imports]
    ids, wanted, cue = [], [], []
    for label, ones in enumerate((without_self, with_self)):
        for mark, others in enumerate((with_imports, with_numbers)):
            ids.append(torch.cat([some(x, size.rows, generator) for x in (ones, others)], 1))
            wanted += [bool(label)] * size.rows
            cue += [bool(mark)] * size.rows
    begin = text[:1, :1].expand(len(wanted), 1)
    rows = Tokens.of(torch.cat([begin, torch.cat(ids)], 1))
    return Rows(rows.to(model.device), torch.tensor(wanted).to(model.device), torch.tensor(cue).to(model.device))


def some(given: Int[Tensor, "pieces piece"], n: int, generator: torch.Generator) -> Int[Tensor, "n piece"]:
    """Raises Refusal where the text holds none; few are used more than once."""
    if not len(given):
        raise Refusal("the text holds no piece of code of one of the four kinds; give more text")
    return given[torch.randint(len(given), (n,), generator=generator)]


# ---------------------------------------------------------------- what the verdict rests on


@dataclass(frozen=True, eq=False)
class Removal:
    """The latents that matter most to the verdict, and which of them are about the cue."""

    effects: Float[Tensor, "latents"]
    share: Float[Tensor, "latents"]  # of each latent's activity on the cue, what falls on numbers
    removed: list[int]
    others: list[int]  # latents that are active and not about the cue

    @classmethod
    def of(cls, model: HookedModel, site: Site, sae: Dictionary, material: Material, size: Size) -> "Removal":
        rows = material.ambiguous
        found = classifier(site, pooled(model, rows.tokens, site), rows.wanted)
        effects = strengths(model, sae, found, rows.tokens)
        share, more = on_the_cue(model, site, sae, material.balanced, size)
        strongest = effects.argsort(descending=True)[: size.strongest].tolist()
        cued = ((share - 0.5).abs() >= ABOUT - 0.5) & (more >= MORE)
        others = (~cued & (effects > 0)).nonzero()[:, 0].tolist()
        return cls(effects, share, [i for i in strongest if cued[i]], others)


def strengths(model: HookedModel, sae: Dictionary, found: Component, rows: Tokens) -> Float[Tensor, "latents"]:
    """How far ablating each latent moves the verdict, on the mean over rows of the size of the move."""
    parts: list[NodeEffects] = [
        attributed(model, rows.rows(slice(start, start + 100)), None, [sae], verdict(found))
        for start in range(0, len(rows), 100)
    ]
    return together(parts).tables[0][:, :-1].abs().mean(0)


@torch.no_grad()
def on_the_cue(
    model: HookedModel, site: Site, sae: Dictionary, rows: Rows, size: Size
) -> tuple[Float[Tensor, "latents"], Float[Tensor, "latents"]]:
    """Of each latent's activity on second pieces, the share on numbers; and how many times that on first pieces it is.

    It takes the cue's own marks alone: whether a first piece has what is wanted is not looked at.
    """
    parts = []
    for start in range(0, len(rows.tokens), 200):
        x = model.run(rows.tokens.rows(slice(start, start + 200)), read=[site])[site]
        parts.append([sae.encode(piece).dense().mean(1) for piece in x[:, 1:].split(size.piece, 1)])
    first, second = (torch.cat(each) for each in zip(*parts, strict=True))
    on, off, elsewhere = second[rows.cue].mean(0), second[~rows.cue].mean(0), first.mean(0)
    return on / (on + off).clamp(min=1e-12), torch.maximum(on, off) / elsewhere.clamp(min=1e-12)


# ---------------------------------------------------------------- classifiers, each judged alike


def contest(
    model: HookedModel, site: Site, sae: Dictionary, material: Material, removal: Removal, generator: torch.Generator
) -> list[Entrant]:
    """The classifier as it is, freed of the cue, freed and fitted again, and the controls."""

    def seen(rows: Rows, removed: list[int] | None = None) -> Float[Tensor, "rows d"]:
        edits: list[Edit] = without([sae], [FeatureNode(0, i) for i in removed]) if removed else []
        return pooled(model, rows.tokens, site, edits)

    biased = classifier(site, seen(material.ambiguous), material.ambiguous.wanted)
    again = classifier(site, seen(material.ambiguous, removal.removed), material.ambiguous.wanted)
    oracle = classifier(site, seen(material.balanced), material.balanced.wanted)
    plain, freed = seen(material.judged), seen(material.judged, removal.removed)
    return [
        entrant("as it learned", biased, plain, material.judged),
        entrant("freed", biased, freed, material.judged),
        entrant("freed and fitted again", again, freed, material.judged),
        at_random(biased, material.judged, removal, seen, generator),
        bottleneck(model, site, sae, material, removal),
        entrant("learned without the cue", oracle, plain, material.judged),
    ]


def entrant(name: str, found: Component, activations: Float[Tensor, "rows d"], rows: Rows) -> Entrant:
    right: Verdicts = judged(found, activations, rows.wanted, rows.groups)
    cue = judged(found, activations, rows.cue)
    return Entrant(name, right.accuracy.value, cue.accuracy.value, right.worst.value)


def at_random(
    found: Component, rows: Rows, removal: Removal, seen: Callable[..., Tensor], generator: torch.Generator
) -> Entrant:
    """As many latents that are not about the cue, the mean over some draws."""
    each = []
    for _ in range(DRAWS):
        order = torch.randperm(len(removal.others), generator=generator)[: len(removal.removed)].tolist()
        each.append(entrant("", found, seen(rows, [removal.others[i] for i in order]), rows))
    return Entrant("freed of random latents", *(sum(column) / DRAWS for column in list(zip(*each, strict=True))[1:]))


def bottleneck(model: HookedModel, site: Site, sae: Dictionary, material: Material, removal: Removal) -> Entrant:
    """A classifier that sees the activity of latents that are not about the cue, and nothing else."""

    @torch.no_grad()
    def activity(rows: Rows) -> Float[Tensor, "rows latents"]:
        parts = rows.tokens.ids.split(200)
        codes = [sae.encode(model.run(Tokens.of(ids), read=[site])[site]).dense().mean(1) for ids in parts]
        return torch.cat(codes)[:, removal.others]

    concepts = Site("concepts", "batch d")
    found = classifier(concepts, activity(material.ambiguous), material.ambiguous.wanted)
    return entrant("bottleneck of other latents", found, activity(material.judged), material.judged)


# ---------------------------------------------------------------- what they show


def claims(entrants: list[Entrant], removed: int) -> tuple[Claim, ...]:
    by_name = {e.name: e for e in entrants}
    biased, oracle = by_name["as it learned"], by_name["learned without the cue"]
    freed, again, chance = (by_name[n] for n in ("freed", "freed and fitted again", "freed of random latents"))
    gap = oracle.wanted - biased.wanted

    def closed(e: Entrant) -> float:
        return (e.wanted - biased.wanted) / gap if gap > 0 else float("nan")

    return (
        at_least("latents removed", 1, removed, source=MARKS),
        at_least("accuracy lost to the cue, against a classifier that learned without it", 0.05, gap, source=MARKS),
        at_least("of that, what removing latents brings back", 0.5, closed(freed), source=MARKS),
        at_least("of that, what removing latents and fitting again brings back", 0.6, closed(again), source=MARKS),
        at_most("of that, what removing random latents brings back", 0.2, closed(chance), source=MARKS),
        about("agreement with the cue, once freed", 0.5, freed.cue, tolerance=0.1, source=MARKS),
        at_least("accuracy in the worst group gained by it", 0.0, freed.worst - biased.worst, source=MARKS),
    )  # fmt: skip


def said(entrants: list[Entrant], removal: Removal, size: Size) -> str:
    biased, freed = entrants[0], entrants[1]
    return (
        f"Where `self` and numbers no longer go together the classifier is right in {biased.wanted:.1%} and says what "
        f"the numbers say in {biased.cue:.1%}. Of the {size.strongest} latents that move its verdict most "
        f"{len(removal.removed)} are about numbers or about imports. Without them it is right in "
        f"{freed.wanted:.1%} and agrees with the numbers in {freed.cue:.1%}; no label was looked at for that."
    )


def chart(removal: Removal) -> Chart:
    """Every latent by how far it moves the verdict and by how much of its activity is on the cue."""
    moved = removal.effects > 0
    gone = torch.zeros_like(moved)
    gone[removal.removed] = True
    series = [
        Series(name, removal.effects[which].tolist(), removal.share[which].clamp(min=0.01).tolist(), colour, style)
        for name, which, colour, style in (("kept", moved & ~gone, 0, "hollow"), ("removed", moved & gone, 1, "points"))
    ]
    return Chart("What latents do to the verdict, and what they are about", "mean size of effect, logits",
                 "share of activity on numbers, not imports", [s for s in series if s.x])  # fmt: skip


def table(entrants: list[Entrant]) -> Table:
    rows = [[e.name, f"{e.wanted:.1%}", f"{e.cue:.1%}", f"{e.worst:.1%}"] for e in entrants]
    return Table(("classifier", "right", "says what the cue says", "right in its worst group"), rows, numeric=(1, 2, 3))
