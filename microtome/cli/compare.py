"""`microtome compare`: which component of one dictionary is which of another, by what they write and when they fire."""

import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.cli.figures import write_figures
from microtome.cli.finished import finished
from microtome.core.errors import Refusal
from microtome.core.matching import Nearest, nearest
from microtome.dictionaries.files import load_dictionary
from microtome.dictionaries.stability import rotation, written
from microtome.explain.together import together
from microtome.store.catalog import Catalog
from microtome.store.notes import Notes
from microtome.store.records import Alike, Compared, Comparison, Run

CHANCE = 0.99  # quantile of the cosines to directions turned at random
LEAST = 0.7  # from which two components count as one


def compare(
    one: Path, other: Path, /, *, into: Path, least: float = LEAST, seed: int = 0, json: Path | None = None
) -> Comparison:
    """Find for each component of one run its nearest in another: of other seeds, widths, layers, checkpoints, recipes.

    By what they write, where both write vectors of one length, beside the same with directions turned at random; and by
    when they fire, where both were catalogued on the same text. A run beside itself shows its near duplicates.

    Parameters
    ----------
    one
        A run with a catalogue, as `microtome dissect` leaves it.
    other
        Another, or the same.
    into
        The folder to write: comparison.json and run.json.
    least
        The cosine or correlation from which two components count as one.
    seed
        Of the rotation.
    json
        Also write the figures to this file.
    """
    begun = time.monotonic()
    runs, catalogs = [Run.read(folder) for folder in (one, other)], [Catalog(f / "catalog") for f in (one, other)]
    notes: list[str] = []
    found = Comparison(
        first=compared(one, runs[0], catalogs[0]), second=compared(other, runs[1], catalogs[1]),
        written=by_direction(one, other, least, seed, notes), active=by_activity(catalogs, least, notes), notes=notes,
        seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip
    if found.written is None and found.active is None:
        raise Refusal(f"{one} and {other} cannot be compared: {'; '.join(notes)}")
    into.mkdir(parents=True, exist_ok=True)
    found.write(into)
    finished("compare", runs[0].model, {"one": one, "other": other, "least": least}, into, found.seconds,
             site=runs[0].site)  # fmt: skip
    write_figures(found, json)
    show(found, into)
    return found


def compared(folder: Path, run: Run, catalog: Catalog) -> Compared:
    path = catalog.folder / "notes.sqlite"
    best = Notes(path).best() if path.is_file() else {}
    said = [best[n].text if n in best else None for n in range(len(catalog))]
    density = [float(f"{d:.4g}") for d in catalog.components["density"].tolist()]
    return Compared(name=folder.resolve().name, model=run.model, site=run.site, density=density, said=said)


# ---------------------------------------------------------------- by what they write


def by_direction(one: Path, other: Path, least: float, seed: int, notes: list[str]) -> Alike | None:
    folders = [folder / "dictionary" for folder in (one, other)]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        notes.append(f"directions are not compared, for {missing[0]} is not there")
        return None
    first, second = (written(load_dictionary(folder)) for folder in folders)
    if first.shape[1] != second.shape[1]:
        notes.append(f"directions are not compared: the one has {first.shape[1]} numbers, the other {second.shape[1]}")
        return None
    same = one.resolve() == other.resolve()
    turned = second @ rotation(second.shape[1], torch.Generator().manual_seed(seed))
    by_chance = matched(first, turned, least, False)
    level = float(torch.tensor(by_chance.nearness).quantile(CHANCE))
    return matched(first, second, least, same).model_copy(
        update={"chance": level, "shared_by_chance": by_chance.shared}
    )


def matched(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], least: float, same: bool) -> Alike:
    forth, back = among_others(first, second, same), among_others(second, first, same)
    mutual = back.latents[forth.latents] == torch.arange(len(first))
    shared = (mutual & (forth.cosines >= least)).float().mean().item()
    return Alike(partner=forth.latents.tolist(), nearness=rounded(forth.cosines.numpy()), mutual=mutual.tolist(),
                 least=least, shared=shared)  # fmt: skip


def among_others(first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], same: bool) -> Nearest:
    """The nearest of each; of one dictionary with itself, of the other components."""
    if not same:
        return nearest(first, second)
    found = []
    for start in range(0, len(first), 1024):
        cosines = first[start : start + 1024] @ second.T
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -2.0
        found.append(cosines.max(1))
    return Nearest(torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]))


# ---------------------------------------------------------------- by when they fire


def by_activity(catalogs: list[Catalog], least: float, notes: list[str]) -> Alike | None:
    same = catalogs[0].folder.resolve() == catalogs[1].folder.resolve()
    try:
        forth = together(catalogs[0], None if same else catalogs[1])
        back = forth if same else together(catalogs[1], catalogs[0])
    except Refusal as refusal:
        notes.append(str(refusal))
        return None
    partner, near = forth.component[:, 0], forth.correlation[:, 0]
    mutual = (partner >= 0) & (back.component[partner.clip(0), 0] == np.arange(len(partner)))
    live = np.asarray(catalogs[0].components["count"]) > 0
    shared = float((mutual & (near >= least)).sum() / max(1, live.sum()))
    return Alike(partner=partner.tolist(), nearness=rounded(near), mutual=mutual.tolist(), least=least, shared=shared)


def rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def show(found: Comparison, into: Path) -> None:
    for name, alike in (("write", found.written), ("fire", found.active)):
        if alike is not None:
            by_chance = "" if alike.shared_by_chance is None else f" ({alike.shared_by_chance:.1%} if turned at random)"
            print(f"{alike.shared:.1%} of {found.first.name} {name} as one of {found.second.name} does{by_chance}")
    for note in found.notes:
        print(note)
    print(f"look at them: microtome browse {into}")
