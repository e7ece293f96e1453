"""A classifier learns a cue that it should not use, and is freed of it by removing the latents that carry the cue.

Rows are two pieces of Python from different places. The wanted label is whether the first mentions `self`, the cue
whether the second holds numbers or an import. While the classifier learns the two always agree; when it is judged they
do not. The latents of an autoencoder that move its verdict are found, text with numbers and text with imports say which
of them are about the one or the other, and these are held at their mean. Marks et al. 2024, Sparse Feature Circuits
(arXiv 2403.19647), section 4, with its controls: as many latents drawn at random, a bottleneck of latents that are not
about the cue, and a classifier that learned where the cue says nothing.

The paper has latents at every layer, and keeps what they miss. Here they stand at one site, and what they miss tells
the cue too, where no latent can be removed for it. So all classifiers, those of the controls too, read the activations
as the autoencoder reconstructs them; what is lost where they read the activations themselves stands in the table.
"""

# pyright: reportUnknownMemberType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from microtome.circuits.feature_effects import FeatureNode, NodeEffects, attributed, rank_one, together
from microtome.circuits.shift import Verdicts, classifier, judged, mask_without, pooled, verdict, without
from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit, add, splice
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.data.windows import gather, pieces
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series, Style
from microtome.studies.material import read, topk_of
from microtome.studies.study import Report, Setting, Study, Watch, about, at_least, at_most

MARKS = "Marks et al. 2024, arXiv 2403.19647, section 4"
MORE = 1.5  # times as active on numbers, or on imports, as on other text is a latent that is about the cue
DRAWS = 5  # of random latents


@dataclass(frozen=True)
class Size:
    """How much is read and how large the autoencoder is. `rows`: of each kind of the four, for each purpose."""

    tokens: int = 500_000
    passes: int = 3  # over them
    width: int = 2048
    k: int = 32
    piece: int = 12
    rows: int = 400
    part: float = 0.95  # of all that latents do to the verdict, what those do together that are looked at
    read: int = 6000  # windows that pieces are taken from, at most
    rate: float = 1e-3
    layer: int = 2


FULL, QUICK = Size(), Size(tokens=100_000, passes=6, width=512, k=16, rows=150, read=1200)


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
        sae = topk_of(
            model,
            site,
            setting,
            watch,
            tokens=size.tokens,
            passes=size.passes,
            width=size.width,
            k=size.k,
            rate=size.rate,
        )
        material = drawn(model, size, setting)
        watch.say(f"{len(material.ambiguous.tokens)} rows to learn from, {len(material.judged.tokens)} to be judged on")
        removal = Removal.of(model, site, sae, material, size)
        watch.say(f"{len(removal.removed)} of the {len(removal.looked_at)} strongest latents are about the cue")
        entrants = contest(model, site, sae, material, removal, torch.Generator().manual_seed(setting.seed))
        return Report(claims(entrants, len(removal.removed)),
                      (Sentence(said(entrants, removal)), chart(removal), table(entrants)))  # fmt: skip


STUDY = Shift()


# ---------------------------------------------------------------- the rows


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
    there = first.unique().tolist()
    words = dict(zip(there, (p.strip() for p in pieces(model.tokenizer, there)), strict=True))
    said = [{words[i] for i in row} for row in first.tolist()]
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
    """The latents that matter most to the verdict, the strongest first, and which of them are about the cue."""

    effects: Float[Tensor, "latents"]
    more: Float[Tensor, "latents"]  # how many times as active each is on the cue as on other text
    looked_at: list[int]

    @classmethod
    def of(cls, model: HookedModel, site: Site, sae: Dictionary, material: Material, size: Size) -> "Removal":
        rows = material.ambiguous
        found = classifier(site, pooled(model, rows.tokens, site, [splice(sae)]), rows.wanted)
        effects = strengths(model, sae, found, rows.tokens)
        order = effects.argsort(descending=True)
        enough = int((effects[order].cumsum(0) < size.part * effects.sum()).sum()) + 1
        return cls(effects, on_the_cue(model, site, sae, material.balanced, size), order[:enough].tolist())

    @property
    def removed(self) -> list[int]:
        return [i for i in self.looked_at if self.more[i] >= MORE]

    @property
    def others(self) -> list[int]:
        """Latents that are active and not about the cue."""
        return ((self.more < MORE) & (self.effects > 0)).nonzero()[:, 0].tolist()


def strengths(model: HookedModel, sae: Dictionary, found: Component, rows: Tokens) -> Float[Tensor, "latents"]:
    """How far ablating each latent moves the verdict, on the mean over rows of the size of the move."""
    parts: list[NodeEffects] = [
        attributed(model, rows.rows(slice(start, start + 100)), None, [sae], verdict(found))
        for start in range(0, len(rows), 100)
    ]
    return together(parts).tables[0][:, :-1].abs().mean(0)


@torch.no_grad()
def on_the_cue(model: HookedModel, site: Site, sae: Dictionary, rows: Rows, size: Size) -> Float[Tensor, "latents"]:
    """How many times as active each latent is on numbers, or on imports, as on first pieces, which have neither.

    It takes the cue's own marks alone: whether a first piece has what is wanted is not looked at.
    """
    parts = []
    for start in range(0, len(rows.tokens), 200):
        x = model.run(rows.tokens.rows(slice(start, start + 200)), read=[site])[site]
        parts.append([sae.encode(piece).dense().mean(1) for piece in x[:, 1:].split(size.piece, 1)])
    first, second = (torch.cat(each) for each in zip(*parts, strict=True))
    on, off, elsewhere = second[rows.cue].mean(0), second[~rows.cue].mean(0), first.mean(0)
    return torch.maximum(on, off) / elsewhere.clamp(min=1e-12)


# ---------------------------------------------------------------- classifiers, each judged alike


def contest(
    model: HookedModel, site: Site, sae: Dictionary, material: Material, removal: Removal, generator: torch.Generator
) -> list[Entrant]:
    """The classifier as it is, freed of the cue, freed and fitted again, and the controls."""

    usual = activity(model, site, sae, material.ambiguous.tokens).mean(0)

    def seen(rows: Rows, removed: Sequence[int] = ()) -> Float[Tensor, "rows d"]:
        edits = [splice(sae, mask=mask_without(sae, removed)), *held(sae, site, removed, usual)]
        return pooled(model, rows.tokens, site, edits)

    cued = removal.removed
    biased = classifier(site, seen(material.ambiguous), material.ambiguous.wanted)
    again = classifier(site, seen(material.ambiguous, cued), material.ambiguous.wanted)
    oracle = classifier(site, seen(material.balanced), material.balanced.wanted)
    plain, freed = seen(material.judged), seen(material.judged, cued)
    return [
        entrant("as it learned", biased, plain, material.judged),
        entrant("freed", biased, freed, material.judged),
        entrant("freed and fitted again", again, freed, material.judged),
        at_random(biased, material.judged, removal, seen, generator),
        bottleneck(model, site, sae, material, removal),
        *beside_the_error(model, site, sae, material, cued, usual),
        entrant("learned without the cue", oracle, plain, material.judged),
    ]


def held(sae: Dictionary, site: Site, latents: Sequence[int], usual: Float[Tensor, "latents"]) -> list[Edit]:
    """What ablated latents wrote on the mean is put back, so that the verdict's threshold stays where it was."""
    chosen = list(latents)
    return [add(usual[chosen] @ rank_one(sae)[chosen], 1.0, site)] if chosen else []


@torch.no_grad()
def activity(model: HookedModel, site: Site, sae: Dictionary, tokens: Tokens) -> Float[Tensor, "rows latents"]:
    """How active each latent is, the mean over each row's places."""
    parts = [tokens.rows(slice(start, start + 200)) for start in range(0, len(tokens), 200)]
    return torch.cat([sae.encode(model.run(part, read=[site])[site]).dense().mean(1) for part in parts])


def beside_the_error(
    model: HookedModel, site: Site, sae: Dictionary, material: Material, removed: list[int], usual: Tensor
) -> list[Entrant]:
    """The same for classifiers of the activations themselves, where what latents miss stays."""
    edits = [*without([sae], [FeatureNode(0, i) for i in removed]), *held(sae, site, removed, usual)]
    plain, freed = (pooled(model, material.ambiguous.tokens, site, e) for e in ((), edits))
    biased, again = (classifier(site, x, material.ambiguous.wanted) for x in (plain, freed))
    judging = pooled(model, material.judged.tokens, site, edits)
    return [
        entrant("freed, what latents miss kept", biased, judging, material.judged),
        entrant("freed and fitted again, what latents miss kept", again, judging, material.judged),
    ]


def entrant(name: str, found: Component, activations: Float[Tensor, "rows d"], rows: Rows) -> Entrant:
    right: Verdicts = judged(found, activations, rows.wanted, rows.groups)
    cue = judged(found, activations, rows.cue)
    return Entrant(name, right.accuracy.value, cue.accuracy.value, right.worst.value)


def at_random(
    found: Component, rows: Rows, removal: Removal, seen: Callable[..., Tensor], generator: torch.Generator
) -> Entrant:
    """As many of the latents that were looked at, the mean over some draws."""
    each = []
    for _ in range(DRAWS):
        order = torch.randperm(len(removal.looked_at), generator=generator)[: len(removal.removed)].tolist()
        each.append(entrant("", found, seen(rows, [removal.looked_at[i] for i in order]), rows))
    return Entrant("freed of random latents", *(sum(column) / DRAWS for column in list(zip(*each, strict=True))[1:]))


def bottleneck(model: HookedModel, site: Site, sae: Dictionary, material: Material, removal: Removal) -> Entrant:
    """A classifier that sees the activity of latents that are not about the cue, and nothing else."""

    def seen(rows: Rows) -> Float[Tensor, "rows others"]:
        return activity(model, site, sae, rows.tokens)[:, removal.others]

    concepts = Site("concepts", "batch d")
    found = classifier(concepts, seen(material.ambiguous), material.ambiguous.wanted)
    return entrant("bottleneck of other latents", found, seen(material.judged), material.judged)


# ---------------------------------------------------------------- what they show


def claims(entrants: list[Entrant], removed: int) -> tuple[Claim, ...]:
    by_name = {e.name: e for e in entrants}
    biased, oracle = by_name["as it learned"], by_name["learned without the cue"]
    freed, again, chance = (by_name[n] for n in ("freed", "freed and fitted again", "freed of random latents"))
    gap = oracle.wanted - biased.wanted

    def closed(e: Entrant) -> float:
        return (e.wanted - biased.wanted) / gap if gap > 0 else float("nan")

    return (
        at_least("latents removed", 1.0, float(removed), source=MARKS),
        at_least("accuracy lost to the cue, against a classifier that learned without it", 0.05, gap, source=MARKS),
        at_least("of that, what removing latents brings back", 0.5, closed(freed), source=MARKS),
        at_least("of that, what removing latents and fitting again brings back", 0.6, closed(again), source=MARKS),
        at_most("of that, what removing random latents brings back", 0.2, closed(chance), source=MARKS),
        about("agreement with the cue, once freed", 0.5, freed.cue, tolerance=0.1, source=MARKS),
        at_least("accuracy in the worst group gained by it", 0.0, freed.worst - biased.worst, source=MARKS),
    )  # fmt: skip


def said(entrants: list[Entrant], removal: Removal) -> str:
    biased, freed = entrants[0], entrants[1]
    return (
        f"Where `self` and numbers no longer go together the classifier is right in {biased.wanted:.1%} and says what "
        f"the numbers say in {biased.cue:.1%}. Of the {len(removal.looked_at)} latents that move its verdict most "
        f"{len(removal.removed)} are {MORE:g} times as active on numbers or on imports as on other text. Without them "
        f"it is right in {freed.wanted:.1%} and agrees with the numbers in {freed.cue:.1%}; no label was looked at for "
        "that."
    )


def chart(removal: Removal) -> Chart:
    """Every latent by how far it moves the verdict and by how much more active it is on the cue."""
    gone = torch.zeros_like(removal.effects, dtype=torch.bool)
    gone[removal.removed] = True
    moved = removal.effects > 0

    def series(name: str, which: Bool[Tensor, "latents"], colour: int, style: Style) -> Series:
        more = removal.more[which].clamp(0.1, 100)
        return Series(name, removal.effects[which].tolist(), more.tolist(), colour, style)

    both = series("kept", moved & ~gone, 0, "hollow"), series("removed", moved & gone, 1, "points")
    return Chart("What latents do to the verdict, and what they are about", "mean size of effect, logits",
                 "times as active on the cue as elsewhere", [s for s in both if s.x])  # fmt: skip


def table(entrants: list[Entrant]) -> Table:
    rows = [[e.name, f"{e.wanted:.1%}", f"{e.cue:.1%}", f"{e.worst:.1%}"] for e in entrants]
    return Table(("classifier", "right", "says what the cue says", "right in its worst group"), rows, numeric=(1, 2, 3))
