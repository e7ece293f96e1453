"""Amplify one latent, and the model speaks of little else, until it breaks down.

Templeton et al. 2024, Scaling Monosemanticity, clamped a feature of the Golden Gate Bridge to ten times its largest
activity. Here the model writes Python. A concept is a keyword that few of its texts hold. A latent and a dose are
chosen on some texts, then judged on others that no choice saw: how many texts hold the keyword, dose by dose, beside
the same clamp along random directions of the same length; and what each text costs the untouched model in nats a token,
which says when it has broken down.
"""

# pyright: reportUnknownMemberType=false

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit, clamp
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.core.site import Site
from microtome.data.windows import gather
from microtome.directions.control import redirected
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Heading, Sentence, Table
from microtome.store.records import Claim
from microtome.studies.chart import Chart, Series
from microtome.studies.material import read, topk_of
from microtome.studies.study import Report, Setting, Study, Watch, at_least, at_most

TEMPLETON = "Templeton et al. 2024, Scaling Monosemanticity"
BROKEN = 1.0  # nats a token beyond those of ordinary text
REPEATS = 0.6  # of the different tokens in ordinary text: below it a text repeats itself, which costs few nats
CONCEPTS = (
    "raise", "yield", "lambda", "import", "class", "while", "assert", "global", "async", "try", "with", "del", "print",
    "None", "True",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """The dictionary that is learned, how long texts are and how many, and the doses, in largest activities."""

    tokens: int = 400_000
    passes: int = 3
    width: int = 1024
    k: int = 16
    rate: float = 1e-3
    layer: int = 2
    prompt: int = 12
    new: int = 40
    texts: int = 200
    trials: int = 64  # texts for each choice
    candidates: int = 3  # latents tried for each concept
    controls: int = 5
    doses: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0)


FULL = Size()
QUICK = Size(tokens=120_000, texts=64, trials=32, candidates=3, controls=2, doses=(1.0, 2.0, 3.0, 4.0, 6.0, 10.0))


class Texts(NamedTuple):
    """What was written: the share that holds the concept, nats a token for the untouched model, how many of a text's
    tokens are different ones, and one of the texts."""

    share: float
    nats: float
    distinct: float
    example: str

    def broken(self, ordinary: "Texts") -> bool:
        """Whether they cost the untouched model a nat a token more than ordinary ones, or repeat themselves."""
        return self.nats > ordinary.nats + BROKEN or self.distinct < REPEATS * ordinary.distinct


class Chosen(NamedTuple):
    """A concept, the latent that stands for it, its largest activity on text, and the dose that was chosen."""

    concept: str
    component: Component
    most: float
    dose: float


class GoldenGate(Study):
    name = "golden_gate"
    paper = "Templeton et al. 2024, Scaling Monosemanticity: Extracting Interpretable Features from Claude 3 Sonnet"
    question = "Does a model speak of what one latent stands for when that latent is held at a high activity?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL) -> None:
        self.quick, self.full = quick, full

    @torch.no_grad()
    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        model = load(setting.model, device=setting.device)
        site = model.site(f"resid_post.{size.layer}")
        with torch.enable_grad():
            sae = topk_of(model, site, setting, watch, tokens=size.tokens, passes=size.passes, width=size.width,
                          k=size.k, rate=size.rate)  # fmt: skip
        choosing, judging = prompts(model, size, setting)
        writer = Writer(model, size, setting.seed)
        chosen = choose(writer, sae, site, choosing, watch)
        watch.say(f"{chosen.concept!r}: latent {chosen.component.index} at {chosen.dose:g} times {chosen.most:.1f}")
        found = judged(writer, chosen, judging, watch)
        return Report(claims(found, chosen), pieces(found, chosen))


STUDY = GoldenGate()


# ---------------------------------------------------------------- what is written


def prompts(model: HookedModel, size: Size, setting: Setting) -> tuple[Tokens, Tokens]:
    """Beginnings of held-out texts: those to choose on, and others to judge on."""
    ids = gather(read(model, setting, "held_out"), size.trials + size.texts).tokens[:, : size.prompt]
    if len(ids) < size.trials + size.texts:
        raise Refusal(f"the text holds {len(ids)} windows, and {size.trials + size.texts} are needed; give more text")
    return Tokens.of(ids[: size.trials]), Tokens.of(ids[size.trials :])


class Writer:
    """A model that goes on from prompts, at temperature 1, and says what is written what costs it."""

    def __init__(self, model: HookedModel, size: Size, seed: int) -> None:
        self.model, self.size, self.seed = model, size, seed
        self.unembedding = model.site("logits")

    def written(self, begun: Tokens, edits: Sequence[Edit] = ()) -> Int[Tensor, "texts new"]:
        """What follows the prompts. Draws are the same for every edit, as far as the logits are."""
        drawn = torch.Generator(self.model.device).manual_seed(self.seed)
        said = self.model.generate(begun, tokens=self.size.new, edit=edits, temperature=1.0, generator=drawn)
        return said.ids[:, begun.ids.shape[1] :]

    def judged(self, begun: Tokens, concept: str, edits: Sequence[Edit] = ()) -> Texts:
        return self.weighed(begun, self.written(begun, edits), concept)

    def weighed(self, begun: Tokens, new: Int[Tensor, "texts new"], concept: str) -> Texts:
        """What was written already."""
        texts = [self.model.tokenizer.decode(row) for row in new.tolist()]
        holds = [holds_it(concept, text) for text in texts]
        example = next((t for t, h in zip(texts, holds, strict=True) if h), texts[0])
        distinct = sum(len(set(row)) for row in new.tolist()) / new.numel()
        return Texts(sum(holds) / len(texts), self.nats(begun, new), distinct, example)

    def nats(self, begun: Tokens, new: Int[Tensor, "texts new"]) -> float:
        """The untouched model's cross-entropy of what was written."""
        ids = torch.cat((begun.ids.to(new.device), new), 1)
        logits = self.model.run(Tokens.of(ids), read=[self.unembedding])[self.unembedding]
        first = begun.ids.shape[1]
        return float(F.cross_entropy(logits[:, first - 1 : -1].flatten(0, 1), new.flatten()))


def holds_it(concept: str, text: str) -> bool:
    """Whether the word stands in a text, by itself."""
    return re.search(rf"\b{concept}\b", text) is not None


# ---------------------------------------------------------------- the choice


def choose(writer: Writer, sae: Dictionary, site: Site, begun: Tokens, watch: Watch) -> Chosen:
    """Of all concepts that at most 3% of ordinary texts hold, and all latents and doses at which text has not broken
    down, the one that is preferred. Raises Refusal where every concept is too common, or no dose works."""
    ordinary = writer.written(begun)
    plain = {concept: writer.weighed(begun, ordinary, concept) for concept in CONCEPTS}
    rare = [concept for concept, texts in plain.items() if texts.share <= 0.03]
    most = largest(writer, sae, site, begun)
    working: list[tuple[Chosen, Texts]] = []
    with watch.stage("choose", len(rare), "concepts") as advance:
        for i, concept in enumerate(rare):
            found = tried(writer, sae, concept, most, begun)
            working += [each for each in found if not each[1].broken(plain[concept])]
            advance(i + 1)
    if not working:
        raise Refusal("no concept is rare enough in ordinary text, or every dose breaks it; give another model, layer")
    return max(working, key=lambda each: preference(each[1].share, plain[each[0].concept].share))[0]


def preference(share: float, ordinary: float) -> tuple[bool, float, float]:
    """The rarest concept that more than half of the texts hold, and where there is none, what most texts hold."""
    enough = share > 0.5
    return enough, -ordinary if enough else 0.0, share


def tried(
    writer: Writer, sae: Dictionary, concept: str, most: Float[Tensor, "components"], begun: Tokens
) -> Iterator[tuple[Chosen, Texts]]:
    """The latents that write most of the concept's first token, each at every dose."""
    for index in speaking(writer.model, sae, concept, most, writer.size.candidates):
        for dose in writer.size.doses:
            chosen = Chosen(concept, sae[index], float(most[index]), dose)
            yield chosen, writer.judged(begun, concept, [steer(chosen)])


def speaking(model: HookedModel, sae: Dictionary, concept: str, most: Tensor, count: int) -> list[int]:
    """Latents by what a largest activity of theirs would do to the concept's logits, straight through the unembedding:
    the dictionary's directions centred over all tokens (logit lens)."""
    module: Any = model.module
    weight: Tensor = module.get_output_embeddings().weight
    ids = [model.tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in (f" {concept}", concept)]
    write = sae.directions().write[:, 0]
    logits = (write @ (weight[ids].mean(0) - weight.mean(0))) / write.norm(dim=1).clamp(min=1e-8)
    return logits.masked_fill(most <= 0, -torch.inf).topk(count).indices.tolist()


def largest(writer: Writer, sae: Dictionary, site: Site, begun: Tokens) -> Float[Tensor, "components"]:
    """The largest activity of every latent over ordinary texts."""
    ids = torch.cat((begun.ids, writer.written(begun).cpu()), 1)
    x = writer.model.run(Tokens.of(ids), read=[site])[site][:, 1:]
    return sae.encode(x).dense().flatten(0, 1).amax(0)


def steer(chosen: Chosen, dose: float | None = None, component: Component | None = None) -> Edit:
    """The latent held at a dose, its dictionary's error kept."""
    return clamp(component or chosen.component, (chosen.dose if dose is None else dose) * chosen.most)


# ---------------------------------------------------------------- the judgement


class Found(NamedTuple):
    """Ordinary texts, those of every dose, and those of every dose along random directions, in turn."""

    ordinary: Texts
    doses: list[float]
    steered: list[Texts]
    controls: list[list[Texts]]


def judged(writer: Writer, chosen: Chosen, begun: Tokens, watch: Watch) -> Found:
    drawn = torch.Generator().manual_seed(writer.seed)
    others = [redirected(chosen.component, drawn) for _ in range(writer.size.controls)]
    doses = sorted({*writer.size.doses, chosen.dose})
    steered, controls = [], []
    with watch.stage("write", len(doses), "doses") as advance:
        for i, dose in enumerate(doses):
            steered.append(writer.judged(begun, chosen.concept, [steer(chosen, dose)]))
            controls.append([writer.judged(begun, chosen.concept, [steer(chosen, dose, c)]) for c in others])
            advance(i + 1)
    return Found(writer.judged(begun, chosen.concept), doses, steered, controls)


def claims(found: Found, chosen: Chosen) -> tuple[Claim, ...]:
    at = found.doses.index(chosen.dose)
    broken = breaks_at(found)
    return (
        at_most("share of ordinary texts that hold the concept", 0.03, found.ordinary.share, source=TEMPLETON),
        at_least("share at the dose that was chosen", 0.30, found.steered[at].share, source=TEMPLETON),
        at_most("share along random directions of the same length, the largest", 0.06,
                max(c.share for c in found.controls[at]), source=TEMPLETON),
        at_most("nats a token at that dose beyond those of ordinary texts", BROKEN,
                found.steered[at].nats - found.ordinary.nats, source="before it breaks down"),
        at_least("different tokens at that dose, as a share of ordinary texts'", REPEATS,
                 found.steered[at].distinct / found.ordinary.distinct, source="before it breaks down"),
        at_most("the dose at which text breaks down", max(found.doses), broken, source=TEMPLETON),
    )  # fmt: skip


def breaks_at(found: Found) -> float:
    """The least dose at which texts are broken; inf where none is."""
    beyond = (dose for dose, texts in zip(found.doses, found.steered, strict=True) if texts.broken(found.ordinary))
    return next(beyond, float("inf"))


def pieces(found: Found, chosen: Chosen) -> tuple[Chart | Heading | Sentence | Table, ...]:
    rows = [row("ordinary", found.ordinary, "")]
    for dose, texts, others in zip(found.doses, found.steered, found.controls, strict=True):
        rows.append(row(f"{dose:g}", texts, f"{max(c.share for c in others):.3f}"))
    heads = ("dose", f"texts with {chosen.concept!r}", "random directions, at most", "nats a token", "different tokens")
    points = [max(t.share, 0.002) for t in found.steered]
    others = [max(max(c.share for c in each), 0.002) for each in found.controls]
    return (
        Sentence(
            f"The concept is the word {chosen.concept!r}, the latent number {chosen.component.index}, its largest "
            f"activity in ordinary texts {chosen.most:.2f}; doses are multiples of that."
        ),
        Chart("Texts that hold the concept, by dose", "dose", "share of texts (.002 for none)", [
            Series("the latent", found.doses, points, 0), Series("random directions", found.doses, others, 1, "dashed"),
        ]),
        Table((*heads, "for example"), rows, numeric=(1, 2, 3, 4)),
    )  # fmt: skip


def row(dose: str, texts: Texts, control: str) -> list[str]:
    return [dose, f"{texts.share:.3f}", control, f"{texts.nats:.2f}", f"{texts.distinct:.2f}", texts.example]
