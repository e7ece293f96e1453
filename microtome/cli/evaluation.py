"""The work of `microtome eval`, stage by stage: each leaves its rows in card.json before the next begins."""

import resource
import time
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from microtome.cli.baselines import ABOUT, baselines
from microtome.cli.progress import Watcher
from microtome.cli.reading import Reading
from microtome.cli.refitting import kind_of, over_directions, recovered_truth, truth_rows
from microtome.cli.settings import Settings as Dissected
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.inputs import Tokens
from microtome.data.labels import LABELS
from microtome.data.spans import OwnLabels
from microtome.data.text import Part
from microtome.data.windows import Text
from microtome.dictionaries.formats.registry import find
from microtome.evals.card import OWN, REFIT, Examination
from microtome.evals.faithfulness import WINDOWS
from microtome.evals.probing import KS
from microtome.evals.structure import combination_rows, decomposability_rows
from microtome.evals.truth import FACTS
from microtome.models.hooked import HookedModel
from microtome.store.records import Card, CardRow, Fact, Run

EACH_COMBINED = 8  # of so many spliced windows one is given to an adversary
NO_KIND = "how {}s find known features is not measured: autoencoders of TopK, BatchTopK, AbsTopK or JumpReLU are"
SAMPLE = 256  # training windows from which units and baselines are estimated


class Settings(BaseModel):
    """Which dictionary to examine, in which model, on how much text."""

    model_config = ConfigDict(extra="forbid")
    dictionary: str
    refits: list[str] = Field(default_factory=list)  # the same dictionary, fitted from other seeds
    into: Path
    model: str | None = None  # none: what the run that made the dictionary says
    site: str | None = None
    text: list[str] = Field(default_factory=list)  # none: the standard library
    labels: Path | None = None  # labelled text of the user's own, in place of text
    tokens: int = Field(150_000, gt=0)  # of training text
    held_out: int = Field(100_000, gt=0)
    spliced: int = Field(64, gt=0)  # held-out windows run with dictionaries in place
    synthetic: int = Field(1500, ge=0)  # steps of fitting to activations whose features are known; 0: none
    context: int | None = Field(None, gt=1)
    seed: int = 0
    device: str = "cpu"
    allow_pickle: bool = False


class Evaluation:
    """One card. `finish` does all of it."""

    def __init__(self, settings: Settings, watch: Watcher):
        self.settings, self.watch = settings, watch
        self.started, self.processor = time.monotonic(), time.process_time()
        self.rows: list[CardRow] = []
        self.notes: list[str] = []
        self.facts: list[Fact] = []

    def finish(self) -> Card:
        """Every stage, in order; the last card is returned."""
        self._read()
        self._survey()
        stages = (
            self._fidelity, self._splice, self._probe, self._absorption, self._biases, self._combine, self._structure,
        )  # fmt: skip
        for stage in stages:
            stage()
            self.card(stage.__name__.strip("_")).write(self.settings.into)
        card = self.card("done")
        card.write(self.settings.into)
        return card

    # ------------------------------------------------------------ what there is

    @cached_property
    def model_name(self) -> str:
        """The model that was given, or the one that the dictionary's run says."""
        if self.settings.model is not None:
            return self.settings.model
        for folder in (Path(self.settings.dictionary), Path(self.settings.dictionary).parent):
            if (folder / Run.file).is_file():
                return Run.read(folder).model
        raise Refusal(f"nothing beside {self.settings.dictionary} says which model it is of; name it with --model")

    @cached_property
    def reading(self) -> Reading:
        given = self.settings
        return Reading(Dissected.model_validate({
            "model": self.model_name, "into": given.into, "text": given.text, "held_out": given.held_out,
            "proposals": given.tokens, "context": given.context, "seed": given.seed, "device": given.device,
        }))  # fmt: skip

    @cached_property
    def dictionary(self) -> Dictionary:
        return self._opened(self.settings.dictionary)

    @cached_property
    def refits(self) -> dict[str, Dictionary]:
        """The same dictionary, fitted from other seeds. Raises Refusal for one of another site or width."""
        found = {f"{REFIT}{path}": self._opened(path) for path in self.settings.refits}
        for name, other in found.items():
            refuse_others(self.dictionary, other, name.removeprefix(REFIT))
        return found

    def _opened(self, path: str) -> Dictionary:
        inner = Path(path) / "dictionary"  # of a run folder
        source = inner if inner.is_dir() else path
        found = find(source, site=self.settings.site, allow_pickle=self.settings.allow_pickle)
        for line in found.lines:
            self.watch.say(line)
        return found.dictionary.to(self.settings.device).requires_grad_(False)

    @cached_property
    def own_labels(self) -> OwnLabels | None:
        return None if self.settings.labels is None else OwnLabels.read(self.settings.labels)

    @cached_property
    def texts(self) -> tuple[Text, Text]:
        """Training text and held-out text, labelled if either Python or the user says how.

        Of many documents each: what is learned from few holds of few.
        """
        if self.own_labels is None:
            given, read = self.settings, self.reading.of_many
            return read("train", given.tokens), read("held_out", given.held_out)
        return self._own("train", self.settings.tokens), self._own("held_out", self.settings.held_out)

    def _own(self, part: Part, tokens: int) -> Text:
        """One part of the user's own labelled text."""
        assert self.own_labels is not None
        most = tokens // (self.reading.context - 1)
        return self.own_labels.text(self.reading.model, part, most, self.settings.context, self.settings.seed)

    @property
    def labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels that are asked for, and all that the text carries."""
        if self.own_labels is not None:
            return self.own_labels.names, self.own_labels.names
        return (FACTS, LABELS) if self.reading.labelled else ((), ())

    # ------------------------------------------------------------ the stages

    def _read(self) -> None:
        """The model, the dictionary, the text; then whether they belong together, and the baselines."""
        refuse_strangers(self.reading.model, self.dictionary, self.model_name)
        refits, (training, held_out) = self.refits, self.texts
        self.watch.say(
            f"{self.model_name}: {training.tokens[:, 1:].numel():,} tokens to learn from, "
            f"{held_out.tokens[:, 1:].numel():,} held out, of {len(held_out.documents)} documents"
        )
        self.sample = rows_of(self.reading.model, self.dictionary, training.tokens[:SAMPLE])
        self.k = max(1, round(float(self.dictionary.encode(self.sample[:20_000]).l0())))
        beside = baselines(
            self.reading.model, self.dictionary.reads[0], self.sample, len(self.dictionary), self.k, self.settings.seed
        )
        asked, known = self.labels
        self.examined = Examination(
            {OWN: self.dictionary, **refits, **beside}, training, held_out, labels=asked, known=known,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )  # fmt: skip
        self.notes += [
            f"the label {name!r} is left out: not some tokens but none or all have it in the training text or the "
            "held-out text; give more of either" for name in self.examined.left_out
        ]  # fmt: skip
        if not asked:
            self.notes.append("the text is not Python, so its tokens have no labels; give some with --labels")

    def _survey(self) -> None:
        windows = sum(map(len, self.texts))
        each = self.texts[0].tokens.shape[1] - 1
        with self.watch.stage("survey", windows * each, "tokens") as advance:
            for seen in self.examined.reading(self.reading.model, self.sample.shape[1]):
                advance(seen * each)

    def _fidelity(self) -> None:
        self.rows += self.examined.fidelity_rows() + self.examined.activity_rows()

    def _splice(self) -> None:
        """Over windows evenly out of the held-out text, so that they come from many documents."""
        windows = spread(len(self.texts[1]), self.settings.spliced)
        with self.watch.stage("splice", len(self.examined.sites) * -(-len(windows) // WINDOWS), "batches") as advance:
            for done, rows in enumerate(self.examined.faithfulness_rows(self.reading.model, windows), 1):
                self.rows += rows
                advance(done)

    def _probe(self) -> None:
        if not self.examined.labelled:
            return
        with self.watch.stage("probe", 3 + len(KS), "scores") as advance:
            self.facts = self.examined.facts()
            for done, row in enumerate(self.examined.probing_rows(), 1):
                self.rows.append(row)
                advance(done)

    def _absorption(self) -> None:
        if self.examined.labelled:
            self.rows += self.examined.absorption_rows()

    def _biases(self) -> None:
        self.rows += self.examined.bias_rows()

    def _combine(self) -> None:
        """On some of the windows that are spliced: an adversary looks at each many times."""
        windows = spread(len(self.texts[1]), -(-self.settings.spliced // EACH_COMBINED))
        generator = torch.Generator().manual_seed(self.settings.seed)
        with self.watch.stage("combine", len(self.examined.asked) * len(windows), "windows") as advance:
            for done, rows in enumerate(combination_rows(self.examined, self.reading.model, windows, generator), 1):
                self.rows += rows
                advance(done)

    def _structure(self) -> None:
        """What directions are made of, and what dictionaries of this kind find where the truth is known."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        self.rows += decomposability_rows(self.examined, over_directions, generator)
        if not self.settings.synthetic:
            return
        kind = kind_of(self.dictionary)
        if kind is None:
            self.notes.append(NO_KIND.format(type(self.dictionary).__name__))
        else:
            self.rows += truth_rows(kind, recovered_truth(kind, generator, self.settings.synthetic))

    # ------------------------------------------------------------ what is written

    def card(self, stage: str) -> Card:
        """All that is known so far."""
        training, held_out = self.texts
        return Card(
            dictionary=self.settings.dictionary, model=self.model_name, site=str(self.dictionary.reads[0]),
            width=len(self.dictionary), baselines=ABOUT, training_tokens=training.tokens[:, 1:].numel(),
            held_out_tokens=held_out.tokens[:, 1:].numel(), documents=len(held_out.documents), stage=stage,
            seconds=time.monotonic() - self.started, processor_seconds=time.process_time() - self.processor,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rows=self.rows,
            facts=self.facts, notes=self.notes,
        )  # fmt: skip


def spread(windows: int, most: int) -> Tensor:
    """So many numbers of windows, evenly out of all."""
    return torch.linspace(0, windows - 1, min(most, windows)).round().long().unique()


@torch.no_grad()
def rows_of(model: HookedModel, dictionary: Dictionary, tokens: Tensor, *, batch: int = 32) -> Float[Tensor, "rows d"]:
    """What the dictionary reads on some windows, position 0 left out."""
    runs = (model.run(Tokens.of(ids), read=list(dictionary.reads)) for ids in tokens.split(batch))
    return torch.cat([dictionary.gather(trace)[:, 1:].flatten(0, 1) for trace in runs])


def refuse_others(own: Dictionary, other: Dictionary, name: str) -> None:
    """Raises Refusal where a dictionary cannot be the same one, fitted anew."""
    same = [(d.reads, d.writes, len(d)) for d in (own, other)]
    if same[0] != same[1]:
        (reads, _, width), (others, _, wide) = same
        raise Refusal(
            f"{name} has {wide} components at {others[0]}, and the dictionary {width} at {reads[0]}: what is fitted "
            "anew has as many at the same site; examine it by itself"
        )


def refuse_strangers(model: HookedModel, dictionary: Dictionary, name: str) -> None:
    """Raises Refusal where the model has no such site, or another width there: the dictionary is of another model."""
    sites = [*dictionary.reads, *dictionary.writes]
    with torch.no_grad():
        trace = model.run(Tokens.of([[0, 0]]), read=[model.site(site.name) for site in sites])
    read, write = (d.shape[-1] for d in dictionary.directions())
    for site, width in [*((s, read) for s in dictionary.reads), *((s, write) for s in dictionary.writes)]:
        if trace[site.name].shape[-1] != width:
            raise Refusal(
                f"the dictionary has {width} numbers a token at {site.name} and {name} has "
                f"{trace[site.name].shape[-1]}: it is of another model or site; name its own with --model or --site"
            )
