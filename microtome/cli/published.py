"""`microtome convert` for what is known of components: a run's catalogue as others publish theirs, and theirs a run."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from microtome.cli.finished import finished
from microtome.core.errors import Refusal
from microtome.core.site import Site
from microtome.explain.neuronpedia import Export, Sentence, read_export, write_export
from microtome.explain.publishing import catalogued, published, told
from microtome.explain.saedashboard import batches, read_batches, write_batches
from microtome.store.catalog import Catalog
from microtome.store.notes import Notes
from microtome.store.records import Run
from microtome.store.records.saedashboard import Batch

TARGETS = ("neuronpedia", "saedashboard", "run")


class Published(BaseModel):
    """What was read and written: so many components, of which so many have sentences."""

    model_config = ConfigDict(extra="forbid")
    source: str
    written: str
    into: str
    components: int
    explained: int


def convert_published(source: Path, into: Path, to: str) -> Published:
    """A run's catalogue to Neuronpedia's export or SAEDashboard's batches, or either of these to a run.

    Raises Refusal where `into` is not empty, or `source` is nothing of the kind.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise Refusal(f"{into} is not an empty folder; give another, so that nothing is overwritten")
    return to_run(source, into) if to == "run" else from_run(source, into, to)


def from_run(source: Path, into: Path, to: str) -> Published:
    run, catalog = Run.read(source), Catalog(source / "catalog")
    components = [n for n in range(len(catalog)) if catalog.components["count"][n]]
    batch = published(catalog, components, model=run.model, **named(run))
    notes = catalog.folder / "notes.sqlite"
    sentences = tuple(told(Notes(notes), components)) if notes.is_file() else ()
    if to == "neuronpedia":
        write_export(Export(batch, sentences), into, created=datetime.now(UTC).isoformat(timespec="seconds"))
    else:
        write_batches(batch, into)
    return summary(source, into, to, batch, sentences)


def named(run: Run) -> dict:
    """The layer and the set's name: `resid_post.8` is layer 8 of microtome-resid-post."""
    site = Site(run.site)
    kind = site.name if site.layer is None else site.name.removesuffix(f".{site.layer}")
    return {"layer": site.layer or 0, "name": f"microtome-{kind.replace('_', '-').replace('.', '-')}"}


def to_run(source: Path, into: Path) -> Published:
    begun = time.monotonic()
    export = Export(read_batches(source)) if batches(source) else read_export(source)
    into.mkdir(parents=True, exist_ok=True)
    catalogued(export.batch, into / "catalog", export.sentences)
    arguments = {"source": str(source), "to": "run"}
    finished("convert", export.batch.model_id, arguments, into, time.monotonic() - begun, site=export.batch.source)
    return summary(source, into, "run", export.batch, export.sentences)


def summary(source: Path, into: Path, to: str, batch: Batch, sentences: Sequence[Sentence]) -> Published:
    explained = len({one.feature for one in sentences})
    found = Published(
        source=str(source), written=to, into=str(into), components=len(batch.features), explained=explained
    )
    look = f"; look at them: microtome browse {into}" if to == "run" else ""
    print(f"{found.components} components, {explained} with sentences, written to {into} as {to}{look}")
    return found
