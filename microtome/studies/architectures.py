"""Every architecture on the same tokens: each recipe of `dictionaries.recipes`, trained and measured alike.

One harvest serves all: aligned rows of the middle layers' sites, every recipe seeing the same batches in the same
order (end-to-end training reads the same text as tokens). What each explains of the site it writes, how many of its
latents are active and dead, and how well the network predicts with it in place, beside directions drawn at random and
principal components.
"""

import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from microtome.core.component import Dictionary
from microtome.core.fit import fit
from microtome.core.inputs import Tokens
from microtome.core.rows import Rows
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.windows import gather
from microtome.dictionaries import recipes
from microtome.dictionaries.baselines import principal_components, random_dictionary
from microtome.dictionaries.coder import Coder
from microtome.dictionaries.one_site import OneSite
from microtome.dictionaries.recipes import Recipe
from microtome.evals.reconstruction import Variance, recovered
from microtome.models.hooked import HookedModel
from microtome.models.load import load
from microtome.notebook.page import Sentence, Table
from microtome.store.records import Claim
from microtome.store.shards import Activations
from microtome.store.survey import surveying
from microtome.studies.kept import Kept
from microtome.studies.material import harvested, read
from microtome.studies.study import Report, Setting, Study, Watch, at_least

SAMPLE = 20_000  # rows from which units are taken


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    tokens: int
    width: int
    k: int
    batch: int
    held_out: int  # windows
    spliced: int  # of these, windows on which cross-entropy is measured
    rate: float = 3e-3


FULL = Size(tokens=500_000, width=2048, k=32, batch=1024, held_out=200, spliced=32)
QUICK = Size(tokens=60_000, width=512, k=16, batch=512, held_out=24, spliced=8)


class Places(NamedTuple):
    """The sites of two neighbouring middle layers."""

    stream: list[Site]
    reads: list[Site]
    writes: list[Site]

    @classmethod
    def of(cls, model: HookedModel) -> "Places":
        stream = model.sites("resid_post.*")
        layers = [len(stream) // 2 - 1, len(stream) // 2]
        return cls(
            *([model.site(f"{name}.{layer}") for layer in layers] for name in ("resid_post", "mlp_in", "mlp_out"))
        )

    @property
    def all(self) -> list[Site]:
        return [*self.stream, *self.reads, *self.writes]


class Material(NamedTuple):
    """What every recipe is given."""

    model: HookedModel
    places: Places
    sample: Rows
    size: Size

    @property
    def one(self) -> tuple[Site, Float[Tensor, "rows d"], int]:
        """Site, sample and width, as recipes of one site want them."""
        site = self.places.stream[-1]
        return site, self.sample[site], self.size.width

    def drawn(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)


ENTRANTS: dict[str, Callable[[Material], Recipe]] = {
    "relu": lambda m: recipes.relu(*m.one, 4e-3, m.drawn()),
    "relu_free": lambda m: recipes.relu_free(*m.one, 4e-3, m.drawn()),
    "annealed": lambda m: recipes.annealed(*m.one, 4e-3, m.size.tokens // m.size.batch, m.drawn()),
    "gated": lambda m: recipes.gated(*m.one, 4e-3, m.drawn()),
    "topk": lambda m: recipes.topk(*m.one, m.size.k, m.drawn()),
    "multi_topk": lambda m: recipes.multi_topk(*m.one, m.size.k, m.drawn()),
    "hierarchical_topk": lambda m: recipes.hierarchical_topk(*m.one, m.size.k, m.drawn()),
    "abs_topk": lambda m: recipes.abs_topk(*m.one, m.size.k, m.drawn()),
    "batch_topk": lambda m: recipes.batch_topk(*m.one, m.size.k, m.drawn()),
    "matryoshka": lambda m: recipes.matryoshka(*m.one, m.size.k, m.drawn()),
    "orthogonal": lambda m: recipes.orthogonal(*m.one, m.size.k, generator=m.drawn()),
    "jump_relu": lambda m: recipes.jump_relu(*m.one, 3e-3, m.drawn()),
    "jump_relu_tanh": lambda m: recipes.jump_relu_tanh(*m.one, 3e-3, m.drawn()),
    "jump_relu_target": lambda m: recipes.jump_relu_target(*m.one, float(m.size.k), m.drawn()),
    "jump_relu_frequency": lambda m: recipes.jump_relu_frequency(*m.one, float(m.size.k), m.drawn()),
    "matching_pursuit": lambda m: recipes.matching_pursuit(*m.one, m.size.k, m.drawn()),
    "end_to_end": lambda m: recipes.end_to_end(m.model, *m.one, m.size.k, m.drawn()),
    "frozen_decoder": lambda m: recipes.frozen_decoder(*m.one, m.size.k, m.drawn()),
    "frozen_encoder": lambda m: recipes.frozen_encoder(*m.one, m.size.k, m.drawn()),
    "transcoder": lambda m: across(m, skip=False),
    "transcoder, skip": lambda m: across(m, skip=True),
    "cross_layer_transcoder": lambda m: recipes.cross_layer_transcoder(
        m.places.reads, m.places.writes, m.sample, m.size.width // 2, m.size.k // 2, m.drawn()
    ),
    "crosscoder": lambda m: recipes.crosscoder(m.places.stream, m.sample, m.size.width, m.size.k, m.drawn()),
}


def across(m: Material, skip: bool) -> Recipe:
    reads, writes = m.places.reads[-1], m.places.writes[-1]
    return recipes.transcoder(reads, writes, m.sample, m.size.width, m.size.k, skip=skip, generator=m.drawn())


class Outcome(NamedTuple):
    """What one dictionary does on text that it did not learn from."""

    name: str
    site: str
    explained: float
    l0: float
    never_fired: float
    ce_recovered: float
    seconds: float


class Architectures(Study):
    name = "architectures"
    paper = "The papers of the recipes, each named beside its figures"
    question = "What does each architecture reach, trained on the same tokens of the same model?"

    def __init__(self, quick: Size = QUICK, full: Size = FULL):
        self.quick, self.full = quick, full

    def run(self, setting: Setting, watch: Watch) -> Report:
        size = self.quick if setting.quick else self.full
        model = load(setting.model, device=setting.device)
        places = Places.of(model)
        acts = harvested(model, places.all, setting, "train", size.tokens, watch)
        sample = Rows({site.name: acts.at(site).sample(SAMPLE, setting.seed) for site in places.all})
        material = Material(model, places, sample, size)
        held_out = gather(read(model, setting, "held_out"), size.held_out).tokens
        found = list(outcomes(material, acts, held_out, setting, watch))
        return Report(claims(found, size), pieces(found, size))


STUDY = Architectures()


def outcomes(
    material: Material, acts: Activations, held_out: Int[Tensor, "windows context"], setting: Setting, watch: Watch
) -> Iterator[Outcome]:
    """Train each and measure it; the baselines last. What was found before a stop is not made again."""
    kept = Kept(setting.into / "outcomes.jsonl", {**asdict(setting), "into": "", "size": asdict(material.size)})
    with watch.stage("train and measure", len(ENTRANTS), "dictionaries") as advance:
        for done, (name, make) in enumerate(ENTRANTS.items(), 1):
            find = partial(outcome, name, make, material, acts, held_out, setting)
            yield Outcome(**kept.of(name, find))
            advance(done)
        for name, dictionary in baselines(material).items():
            yield measured(name, dictionary, material, held_out, 0.0)


def outcome(
    name: str,
    make: Callable[[Material], Recipe],
    material: Material,
    acts: Activations,
    held_out: Int[Tensor, "windows context"],
    setting: Setting,
) -> dict[str, Any]:
    """Train one and measure it."""
    recipe, begun = make(material), time.monotonic()
    learn(recipe, batches(name, recipe, material, acts, setting), material.size.tokens // material.size.batch, material)
    return measured(name, recipe.dictionary, material, held_out, time.monotonic() - begun)._asdict()


def batches(name: str, recipe: Recipe, material: Material, acts: Activations, setting: Setting) -> Iterator[Sized]:
    """The same rows in the same order for all, but for the recipe that learns from tokens: the same text."""
    size = material.size
    if name == "end_to_end":
        return token_batches(material.model, setting, size)
    sites = dict.fromkeys([*recipe.dictionary.reads, *recipe.dictionary.writes])
    return iter(Activations(acts.folder, sites).batches(size.batch, seed=setting.seed))


def token_batches(model: HookedModel, setting: Setting, size: Size) -> Iterator[Tokens]:
    ids = gather(read(model, setting, "train"), size.tokens // 255).tokens
    yield from map(Tokens.of, ids.split(max(1, size.batch // ids.shape[1])))


def learn(recipe: Recipe, given: Iterator[Sized], steps: int, material: Material) -> None:
    """A short warm-up, and a last half in which the rate falls to zero."""
    schedule = WarmUp(20) * Linear(steps // 2, steps + 1)
    learning = fit(recipe.dictionary, given, recipe.objective, lr=material.size.rate, clip=1.0, schedule=schedule)
    for step in learning:
        if step.index == steps:
            break
    if isinstance(recipe.dictionary, Coder):
        recipe.dictionary.calibrate(recipe.dictionary.gather(material.sample))


def baselines(material: Material) -> dict[str, Dictionary]:
    site, sample, width = material.one
    k = material.size.k
    return {
        "random directions": random_dictionary(site, sample, width, k, material.drawn()),
        "principal components": principal_components(site, sample, k),
    }


def measured(
    name: str, dictionary: Dictionary, material: Material, held_out: Int[Tensor, "windows context"], seconds: float
) -> Outcome:
    """On the last site that the dictionary writes at."""
    site = dictionary.writes[-1]
    view = OneSite(dictionary, site) if len(dictionary.writes) > 1 else dictionary
    variance = Variance(view)
    for _ in surveying(material.model, [variance], held_out):
        pass
    share = recovered(material.model, [view], variance.mean, held_out[: material.size.spliced]).shares[0]
    return Outcome(name, site.name, variance.explained, variance.l0, variance.never_fired, share, seconds)


# ---------------------------------------------------------------- what they show


def claims(found: list[Outcome], size: Size) -> tuple[Claim, ...]:
    by_name = {o.name: o for o in found}
    chance, stream = by_name["random directions"], by_name["topk"].site
    learned = [o for o in found if o.site == stream and o.name in ENTRANTS and not o.name.startswith("frozen")]
    worst = min(learned, key=lambda o: o.explained - chance.explained)
    target = by_name["jump_relu_target"].l0 / size.k
    return (
        at_least(
            f"variance explained beyond random directions, by the worst ({worst.name})", 0.0,
            worst.explained - chance.explained, source="a dictionary that learned must beat one that did not",
        ),
        at_least(
            "cross-entropy recovered by TopK beyond a frozen decoder", 0.0,
            by_name["topk"].ce_recovered - by_name["frozen_decoder"].ce_recovered, source="arXiv 2602.14111",
        ),
        at_least(
            "variance explained by BatchTopK beyond TopK's, at most .02 less", -0.02,
            by_name["batch_topk"].explained - by_name["topk"].explained,
            source="Bussmann et al. 2024, arXiv 2412.06410",
        ),
        at_least(
            "L0 of JumpReLU with a target, as a share of it, is at least .8", 0.8, min(target, 1 / target),
            source="Rajamanoharan et al. 2024, arXiv 2407.14435",
        ),
        at_least(
            "variance explained by a transcoder with a skip connection beyond one without", 0.0,
            by_name["transcoder, skip"].explained - by_name["transcoder"].explained,
            source="Paulo et al. 2025, arXiv 2501.18823",
        ),
    )  # fmt: skip


def pieces(found: list[Outcome], size: Size) -> tuple[Sentence | Table, ...]:
    columns = (
        "recipe",
        "what it is",
        "writes at",
        "explained variance",
        "L0",
        "never fired",
        "CE recovered",
        "seconds",
    )
    rows = [
        [
            o.name, words(o.name), o.site, f"{o.explained:.3f}", f"{o.l0:.1f}", f"{o.never_fired:.1%}",
            f"{o.ce_recovered:.1%}", f"{o.seconds:.0f}" if o.seconds else "",
        ]
        for o in found
    ]  # fmt: skip
    told = (
        f"{size.tokens:,} tokens in batches of {size.batch}, {size.width} latents, k {size.k} where there is one; "
        f"measured on {size.held_out} held-out windows. A penalty in place of k leads to the L0 that its weight gives: "
        "compare explained variance only at like L0. Cross-entropy recovered is against the site's mean."
    )
    return Sentence(told), Table(columns, rows, numeric=(3, 4, 5, 6, 7))


def words(name: str) -> str:
    """The first sentences of a recipe's docstring: what it is, and whose."""
    recipe = getattr(recipes, name.split(",")[0], None)
    return " ".join((recipe.__doc__ or "").split("\n\n")[0].split()) if recipe else "a baseline"
