"""Edits as a file: what was changed, where and with what, to be listed, sent and made again.

An edit is a value (a kind, a site, operands), so it is written field by field. Dictionaries are not copied: they are
named, and whoever reads the file says which dictionary each name means. A free function cannot be saved, and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from microtome.core import edit as kinds
from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit
from microtome.core.errors import Refusal
from microtome.core.inputs import At, Tokens
from microtome.core.site import Site
from microtome.core.trace import Trace
from microtome.store.checkpoint import load_state, save_state

KINDS = {
    k.__name__: k
    for k in (
        kinds.Patch,
        kinds.Fill,
        kinds.Splice,
        kinds.Add,
        kinds.Scale,
        kinds.Clamp,
        kinds.ProjectOut,
        kinds.Masked,
    )
}
Named = Mapping[str, Dictionary]


def save_edits(edits: Sequence[Edit], path: Path | str, dictionaries: Named | None = None) -> None:
    """Write edits. Raises Refusal for a free function, or a dictionary that has no name in `dictionaries`."""
    save_state({"edits": [written(edit, dictionaries or {}) for edit in edits]}, Path(path))


def load_edits(path: Path | str, dictionaries: Named | None = None) -> list[Edit]:
    """Read edits back. Raises Refusal where a dictionary that they name is not given."""
    return [read(record, dictionaries or {}) for record in load_state(Path(path))["edits"]]


def written(edit: Edit, dictionaries: Named) -> dict:
    """An edit as plain values and tensors. Raises Refusal for one that files have no word for."""
    kind = type(edit).__name__
    if kind not in KINDS:
        raise Refusal(
            f"'{edit}' cannot be saved: files have no word for {kind}; say it with {', '.join(sorted(KINDS))}"
        )
    operands = {
        f.name: value_written(getattr(edit, f.name), edit, dictionaries) for f in fields(edit) if f.name != "site"
    }
    return {"kind": kind, "site": site_written(edit.site), "operands": operands}


def read(record: dict, dictionaries: Named) -> Edit:
    """The edit that `written` wrote."""
    site = site_read(record["site"])
    operands = {name: value_read(value, site, dictionaries) for name, value in record["operands"].items()}
    return KINDS[record["kind"]](site, **operands)


def value_written(value: Any, edit: Edit, dictionaries: Named) -> Any:
    """One operand as plain values: dictionaries by name, a trace by the site that the edit looks at."""
    match value:
        case Component(dictionary=dictionary, index=index):
            return {"component": index, "of": name_of(dictionary, dictionaries)}
        case Dictionary():
            return {"dictionary": name_of(value, dictionaries)}
        case Trace(inputs=Tokens(ids=ids, mask=mask)):
            return {"trace": value[edit.site.whole], "ids": ids, "mask": mask}
        case Trace():
            raise Refusal(f"'{edit}' cannot be saved: only patches from runs over tokens can")
    return value


def value_read(value: Any, site: Site, dictionaries: Named) -> Any:
    """The operand that `value_written` wrote."""
    match value:
        case {"component": index, "of": name}:
            return named(name, dictionaries)[index]
        case {"dictionary": name}:
            return named(name, dictionaries)
        case {"trace": tensor, "ids": ids, "mask": mask}:
            return Trace(Tokens(ids, mask), {site.name: tensor}, {site.name: site.whole})
    return value


def name_of(dictionary: Dictionary, dictionaries: Named) -> str:
    """The name of a dictionary among those given. Raises Refusal where it has none."""
    for name, known in dictionaries.items():
        if known is dictionary:
            return name
    raise Refusal(f"an edit uses a {type(dictionary).__name__} without a name; pass dictionaries={{'a name': it}}")


def named(name: str, dictionaries: Named) -> Dictionary:
    """The dictionary of this name. Raises Refusal where none is given under it."""
    if name not in dictionaries:
        raise Refusal(f"these edits use a dictionary called {name!r}; pass dictionaries={{{name!r}: ...}}")
    return dictionaries[name]


def site_written(site: Site) -> dict:
    """A site with its axes and fixed places."""
    return {"name": site.name, "axes": site.axes, "where": {axis: place_written(place) for axis, place in site.where}}


def site_read(record: dict) -> Site:
    """The site that `site_written` wrote."""
    where = {axis: place_read(place) for axis, place in record["where"].items()}
    return Site(record["name"], record["axes"]).at(**where)


def place_written(place: At) -> Any:
    """A number or a list as it is, a slice by its ends."""
    return {"from": place.start, "to": place.stop} if isinstance(place, slice) else place


def place_read(place: Any) -> At:
    """The place that `place_written` wrote."""
    return slice(place["from"], place["to"]) if isinstance(place, dict) else place
