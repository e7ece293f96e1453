"""`microtome map`: a run's components drawn anew as points, near one another where they write nearly the same."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from microtome.cli.figures import write_figures
from microtome.dictionaries.files import load_dictionary
from microtome.dictionaries.stability import written
from microtome.explain.plane import neighbourly, principal
from microtome.store.catalog import Catalog, write_map


class Mapped(BaseModel):
    """What was drawn, and how."""

    model_config = ConfigDict(extra="forbid")
    run: str
    by: str
    components: int


def draw(run: Path, /, *, by: Literal["pca", "umap"] = "umap", seed: int = 0, json: Path | None = None) -> Mapped:
    """Draw the map that a run's page shows, in place of the one that is there.

    Parameters
    ----------
    run
        A run folder with a dictionary and a catalogue, as `microtome dissect` leaves it.
    by
        umap keeps who is next to whom (it needs `pip install microtome[umap]`); pca the largest distances.
    seed
        Of UMAP.
    json
        Also write the figures to this file.
    """
    catalog = Catalog(run / "catalog")
    directions = written(load_dictionary(run / "dictionary"))[: len(catalog)]
    places = principal(directions) if by == "pca" else neighbourly(directions, seed=seed)
    write_map(catalog, places.numpy())
    found = Mapped(run=str(run), by=by, components=len(catalog))
    write_figures(found, json)
    print(f"{found.components} components drawn by {by}; look at them: microtome browse {run}")
    return found
