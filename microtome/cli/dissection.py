"""The package's main job: take a model apart at one site, and leave a folder that can be browsed.

load and verify the model -> harvest activations -> fit a dictionary -> catalogue its components -> explain each ->
measure the whole beside its baselines. Every stage leaves its result on disk before the next begins, so a run that was
stopped goes on from where it was.
"""

import json
import resource
import shutil
import time
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import cast, get_args

import numpy as np
import torch

from microtome.cli.baselines import baselines
from microtome.cli.progress import Watcher
from microtome.cli.reading import Reading
from microtome.cli.settings import Settings
from microtome.core.component import Dictionary
from microtome.core.errors import Refusal
from microtome.core.fit import Step, fit
from microtome.core.schedule import Linear, WarmUp
from microtome.core.site import Site
from microtome.data.labels import LABELS
from microtome.data.windows import Text, gather
from microtome.dictionaries.activation_functions import TopK
from microtome.dictionaries.files import load_dictionary, save_dictionary
from microtome.dictionaries.formats.format import SiteUnknown
from microtome.dictionaries.formats.registry import find
from microtome.dictionaries.formats.self_check import Found
from microtome.dictionaries.normalisation import UnitMeanSquare
from microtome.dictionaries.objectives import AuxK, Reconstruction
from microtome.dictionaries.sae import SAE
from microtome.evals.reconstruction import Variance, recovered
from microtome.explain.catalog import Cataloguer
from microtome.explain.rules import explain_rules
from microtome.models.lens import direct_logits
from microtome.store.catalog import Catalog
from microtome.store.checkpoint import load_state, save_state
from microtome.store.harvest import harvesting
from microtome.store.journal import JSONLines
from microtome.store.notes import Notes
from microtome.store.records import Baseline, Figures, Run, Stage, Summary
from microtome.store.resuming import resumable
from microtome.store.shards import Activations, Batches
from microtome.store.survey import surveying

OWN = "own"  # the dictionary itself, among its baselines
STREAM = ("embed", "resid_", "attn_out", "mlp_out")  # sites whose directions are of the residual stream
STAGES: tuple[Stage, ...] = ("load", "harvest", "fit", "catalog", "explain", "measure", "done")
DEAD_WINDOW = 1_000_000  # training tokens without a firing after which a latent counts as dead
REVIVE_AFTER = 250_000  # ... after which AuxK begins to revive it
GOOD_EXPLANATION = 0.8  # balanced accuracy, held out
BASELINE_COMPONENTS = 256  # of each baseline explained: a sample says enough
SAMPLE = 100_000  # rows from which units and baselines are estimated
SPLICED = 64  # held-out windows on which cross-entropy is measured
LOG_EVERY, SAVE_EVERY = 20, 200  # steps
TRAINING = "training.safetensors"  # the state of the fit, in the run's folder


class Dissection:
    """One run, stage by stage, in one folder."""

    def __init__(self, settings: Settings, watch: Watcher, *, resume: bool = False):
        settings.refuse_nonsense()
        self.settings, self.watch, self.folder = settings, watch, settings.into
        self.reading = Reading(settings)
        self.run = self._taken_up() if resume else self._begun()

    def _begun(self) -> Run:
        if (self.folder / Run.file).exists() and any(
            self.folder.glob("*/*")
        ):  # not of one that failed before it made anything
            raise Refusal(f"{self.folder} already holds a run; --resume goes on with it, another --into begins anew")
        run = Run(
            command="dissect", arguments=json.loads(self.settings.model_dump_json(exclude={"into"})),
            model=self.settings.model, site=self.settings.site, version=version("microtome"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        run.write(self.folder)
        return run

    def _taken_up(self) -> Run:
        if not (self.folder / Run.file).exists() or not any(self.folder.glob("*/*")):
            return self._begun()
        run = Run.read(self.folder)
        given = json.loads(self.settings.model_dump_json(exclude={"into"}))
        changed = sorted(key for key in given if given[key] != run.arguments.get(key))
        if changed:
            was = ", ".join(f"{key}={run.arguments.get(key)!r}" for key in changed)
            raise Refusal(f"{self.folder} was begun with {was}; give the same to resume, or another --into")
        return run

    def finish(self) -> Summary:
        """Do every stage that is still to do, and return the figures."""
        started = time.monotonic()
        for stage in STAGES[STAGES.index(self.run.stage) : -1]:
            self._at(stage)
            getattr(self, f"_{stage}")()
            self.run.seconds += time.monotonic() - started
            started = time.monotonic()
        self._at("done")
        summary = Summary.read(self.folder)
        summary = summary.model_copy(update={"seconds": self.run.seconds})
        summary.write(self.folder)
        return summary

    def _at(self, stage: Stage) -> None:
        self.run = self.run.model_copy(update={"stage": stage})
        self.run.write(self.folder)

    # ------------------------------------------------------------ what the stages share

    @cached_property
    def site(self) -> Site:
        return self.dictionary.reads[0] if self.settings.dictionary else self.reading.model.site(self.settings.site)

    @cached_property
    def activations(self) -> Activations:
        return Activations(self.folder / "activations")

    @cached_property
    def dictionary(self) -> SAE:
        given = self.given.dictionary if self.settings.dictionary else load_dictionary(self.folder / "dictionary")
        return cast(SAE, given.to(self.settings.device))

    @cached_property
    def given(self) -> Found:
        """The dictionary that was trained elsewhere; --site counts where its files do not say."""
        assert self.settings.dictionary is not None
        try:
            return find(self.settings.dictionary)
        except SiteUnknown:
            return find(self.settings.dictionary, site=self.settings.site)

    # ------------------------------------------------------------ the stages

    def _load(self) -> None:
        model = self.reading.model
        parameters = sum(p.numel() for p in model.module.parameters())
        self.watch.say(
            f"{self.settings.model}: {parameters / 1e6:.1f}M parameters, {len(model.sites())} sites verified; "
            f"reading {self.site}"
        )
        for line in self.given.lines if self.settings.dictionary else ():
            self.watch.say(line)
        if self.settings.text == []:
            self.watch.say("text: the standard library's source (give --text for your own)")

    def _harvest(self) -> None:
        if self.settings.dictionary:
            return
        with self.watch.stage("harvest", self.settings.tokens, "tokens") as advance:
            about = {"model": self.settings.model, "context": self.reading.context, "seed": self.settings.seed}
            found = harvesting(
                self.reading.model,
                self.reading.windows("train"),
                self.site,
                self.settings.tokens,
                self.folder / "activations",
                about=about,
            )
            for progress in found:
                advance(progress.rows)
        if len(self.activations) < self.settings.tokens:
            self.watch.say(
                f"  the text holds only {len(self.activations):,} tokens of the {self.settings.tokens:,} asked for; "
                "using them all"
            )

    def _fit(self) -> None:
        if self.settings.dictionary:
            save_dictionary(self.dictionary, self.folder / "dictionary")
            return
        learning, batches = self._learning()
        steps = resumable(learning, batches, self.folder / TRAINING, every=SAVE_EVERY)
        journal = JSONLines(self.folder / "training.jsonl", resume_after=learning.index)
        last, begun = self.activations.batches_in(self.settings.epochs, self.settings.batch), time.monotonic()
        with self.watch.stage("fit", last, "steps") as advance:
            for step in steps:
                advance(step.index)
                if step.index % LOG_EVERY == 0 or step.index == last:
                    journal.log(step.index, logged(step, learning, time.monotonic() - begun))
        save_dictionary(cast(SAE, learning.learned), self.folder / "dictionary")

    def _learning(self) -> tuple[fit, Batches]:
        """The fit as it begins, and the batches that it learns from."""
        given, acts = self.settings, self.activations
        generator = torch.Generator().manual_seed(given.seed)
        units = UnitMeanSquare.of(acts.sample(SAMPLE))
        sae = SAE(self.site, acts.width, given.width, TopK(given.k), units, generator=generator).to(given.device)
        objective = (Reconstruction() + AuxK(given.width, dead_after=REVIVE_AFTER)).to(given.device)
        batches = acts.batches(given.batch, epochs=given.epochs, seed=given.seed)
        steps = acts.batches_in(given.epochs, given.batch)
        schedule = WarmUp(50) * Linear(int(0.3 * steps), steps)
        moved = (batch.to(given.device) for batch in batches)
        return fit(sae, moved, objective, lr=given.lr, schedule=schedule), batches

    def _catalog(self) -> None:
        """One pass over held-out text, for the catalogue, those of the baselines and everybody's variance.

        And one over some of the training text, for catalogues from which nothing but explanations are proposed.
        """
        dictionaries = {OWN: self.dictionary, **self.baselines}
        variances = {name: Variance(d) for name, d in dictionaries.items()}
        shown, asked = (
            self._cataloguers(text, folders)
            for text, folders in ((self.reading.held_out, self.catalogs), (self.reading.proposals, self.sources))
        )
        each = self.reading.context - 1
        with self.watch.stage(
            "catalog", (len(self.reading.held_out) + len(self.reading.proposals)) * each, "tokens"
        ) as advance:
            for seen in surveying(
                self.reading.model, [*variances.values(), *shown.values()], self.reading.held_out.tokens
            ):
                advance(seen * each)
            for seen in surveying(self.reading.model, [*asked.values()], self.reading.proposals.tokens):
                advance((len(self.reading.held_out) + seen) * each)
            about = {"vocabulary": self.reading.vocabulary, "labels": LABELS if self.reading.labelled else ()}
            for name, cataloguer in shown.items():
                logits = self._logits() if name == OWN else None
                cataloguer.finish(**about, about=self.reading.about_held_out, logits=logits)
            for cataloguer in asked.values():
                cataloguer.finish(**about, about="training text, from which explanations are proposed")
        kept = {
            n: {"explained_variance": v.explained, "l0": v.l0, "dead_fraction": v.never_fired, "mean": v.mean}
            for n, v in variances.items()
        }
        save_state(kept, self.folder / "variances.safetensors")

    @cached_property
    def baselines(self) -> dict[str, Dictionary]:
        """What the dictionary must beat, at the same sparsity."""
        sample, width, k = self._sample(), len(self.dictionary), self._k()
        return baselines(self.reading.model, self.site, sample, width, k, self.settings.seed, get_args(Baseline))

    def _cataloguers(self, text: Text, folders: dict[str, Path]) -> dict[str, Cataloguer]:
        dictionaries = {OWN: self.dictionary, **self.baselines}
        return {
            name: Cataloguer(dictionaries[name], text, folder, None if name == OWN else BASELINE_COMPONENTS)
            for name, folder in folders.items()
        }

    @property
    def catalogs(self) -> dict[str, Path]:
        """Where each catalogue is. Principal components always fire: there is no when to explain."""
        return {OWN: self.folder / "catalog", "random": self.folder / ".random", "neurons": self.folder / ".neurons"}

    @property
    def sources(self) -> dict[str, Path]:
        """Where the catalogues are from which explanations are proposed."""
        return {name: self.folder / f".proposals-{name}" for name in self.catalogs}

    def _logits(self) -> torch.Tensor | None:
        """Each component's direct effect on the logits, where the site and the model have one."""
        if not self.site.name.startswith(STREAM):
            return None
        return direct_logits(self.reading.model, self.dictionary.directions().write[:, 0].detach())

    def _explain(self) -> None:
        catalogs = {name: Catalog(folder) for name, folder in self.catalogs.items()}
        done, total = 0, sum(map(len, catalogs.values()))
        shares = {}
        with self.watch.stage("explain", total, "components") as advance:
            for name, catalog in catalogs.items():
                found = list(
                    explain_rules(
                        catalog,
                        progress=lambda n, before=done: advance(before + n),
                        proposals=Catalog(self.sources[name]),
                    )
                )
                shares[name] = explained_share(catalog, found)
                if name == OWN:
                    Notes(catalog.folder / "notes.sqlite").put(found)
                done += len(catalog)
        save_state(shares, self.folder / "explained.safetensors")

    def _measure(self) -> None:
        """Cross-entropy recovered, by each dictionary at its own site against that site's mean; then the summary."""
        found, shares = (
            load_state(self.folder / "variances.safetensors"),
            load_state(self.folder / "explained.safetensors"),
        )
        dictionaries = {OWN: self.dictionary, **self.baselines}
        sites = dict.fromkeys(d.writes[0] for d in dictionaries.values())
        with self.watch.stage("measure", len(sites), "sites") as advance:
            for number, site in enumerate(sites, 1):
                here = [name for name, d in dictionaries.items() if d.writes[0] == site]
                mean, tokens = found[here[0]]["mean"], self.reading.held_out.tokens[:SPLICED]
                scores = recovered(self.reading.model, [dictionaries[n] for n in here], mean, tokens).shares
                for name, score in zip(here, scores, strict=True):
                    found[name]["ce_recovered"] = score
                advance(number)
        figures = {
            name: Figures(**{k: v for k, v in found[name].items() if k != "mean"}, explained_fraction=shares.get(name))
            for name in dictionaries
        }
        self._summarise(figures)
        self._tidy()

    def _tidy(self) -> None:
        for folder in (self.catalogs["random"], self.catalogs["neurons"], *self.sources.values()):
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("variances", "explained"):
            (self.folder / f"{name}.safetensors").unlink(missing_ok=True)

    def _k(self) -> int:
        """Components active at once, for baselines of the same sparsity."""
        return self.dictionary.activation.settings().get("k", self.settings.k)

    def _sample(self) -> torch.Tensor:
        if not self.settings.dictionary:
            return self.activations.sample(SAMPLE, seed=1)
        some = gather(self.reading.windows("train"), 256).tokens
        with torch.no_grad():
            return self.reading.model.run(some, read=[self.site])[self.site][:, 1:].flatten(0, 1).cpu()

    def _summarise(self, figures: dict[str, Figures]) -> None:
        own = figures.pop(OWN)
        own.dead_fraction = self._dead(own.dead_fraction)
        Summary(
            **own.model_dump(), model=self.settings.model, site=str(self.site), width=len(self.dictionary), k=self._k(),
            tokens=0 if self.settings.dictionary else len(self.activations), seconds=0.0,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            baselines=cast(dict[Baseline, Figures], figures),
        ).write(self.folder)  # fmt: skip

    def _dead(self, never_fired: float | None) -> float | None:
        """Of a dictionary trained here, the share silent for the last million training tokens (or all of them)."""
        saved = self.folder / TRAINING
        if self.settings.dictionary or not saved.exists():
            return never_fired
        learning = load_state(saved)["learning"]
        silent = next(v for k, v in learning["objective"].items() if k.endswith("silent"))
        return (silent >= min(DEAD_WINDOW, learning["rows"])).float().mean().item()


def logged(step: Step, learning: fit, seconds: float) -> dict[str, float | int]:
    """The figures of one row of training.jsonl."""
    objective = cast(torch.nn.Module, learning.objective)
    silent = next(b for name, b in objective.named_buffers() if name.endswith("silent"))
    return {
        "tokens": step.rows, "loss": step.loss, "explained_variance": 1 - step.parts["unexplained"],
        "auxk": step.parts["auxk"], "dead_fraction": (silent >= DEAD_WINDOW).float().mean().item(), "seconds": seconds,
    }  # fmt: skip


def explained_share(catalog: Catalog, found: list) -> float:
    """Of the components that fired at all, the share whose explanation scores at least .8 held out."""
    live = int(np.count_nonzero(catalog.components["count"]))
    return sum(e.score >= GOOD_EXPLANATION for e in found) / max(1, live)
