"""The card of a component: what it reads and writes, and, where there is a catalogue, what it responds to."""

from collections.abc import Iterator
from itertools import islice
from weakref import WeakKeyDictionary

import torch

from microtome.core.component import Component, Dictionary
from microtome.core.errors import Refusal
from microtome.notebook.page import Cell, Heading, Page, Sentence, Strip, Table, visible
from microtome.store.catalog import Catalog, Example
from microtome.store.notes import Explanation, Notes

BEFORE, AFTER = 18, 8  # tokens shown around the peak of an example
STRONGEST, EACH_FIFTH = 6, 1  # examples shown
NEAREST = 6

catalogs: WeakKeyDictionary[Dictionary, Catalog] = WeakKeyDictionary()


def remember(dictionary: Dictionary, catalog: Catalog) -> None:
    """From now on this dictionary's components are shown with what the catalogue says of them."""
    if len(catalog) > len(dictionary):
        raise Refusal(
            f"the catalogue is of {len(catalog)} components and the dictionary has {len(dictionary)}; "
            "they do not belong together"
        )
    catalogs[dictionary] = catalog


def card(component: Component) -> Page:
    heading = Page.of(
        Heading(f"component {component.index} of {type(component.dictionary).__name__}"),
        Sentence(places(component.dictionary)),
    )
    catalog = catalogs.get(component.dictionary)
    if catalog is None or component.index >= len(catalog):
        return heading + geometry(component)
    return heading + evidence(catalog, component.index)


def places(dictionary: Dictionary) -> str:
    reads, writes = (", ".join(f"`{site}`" for site in sites) for sites in (dictionary.reads, dictionary.writes))
    return f"reads {reads}, writes {writes or 'nothing'}"


# ---------------------------------------------------------------- without a catalogue


@torch.no_grad()
def geometry(component: Component) -> Page:
    read, write = component.read, component.write
    facts = f"rank {len(read)}; length of what it reads {read.norm():.3g}, of what it writes {write.norm():.3g}"
    return Page.of(Sentence(facts), nearest(component))


def nearest(component: Component) -> Table:
    """The components whose directions point most nearly the same way."""
    directions = component.dictionary.directions()
    all_of = directions.write if component.dictionary.writes else directions.read
    unit = torch.nn.functional.normalize(all_of.flatten(1).float(), dim=1)
    cosine = unit @ unit[component.index]
    cosine[component.index] = -torch.inf
    best = cosine.topk(min(NEAREST, len(unit) - 1))
    rows = [[str(i), Cell(f"{c:+.2f}", c)] for c, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
    return Table(("nearest", "cosine"), rows, numeric=(0, 1))


# ---------------------------------------------------------------- with one


def evidence(catalog: Catalog, index: int) -> Page:
    rows = catalog.components
    count, most = int(rows["count"][index]), float(rows["max"][index])
    if not count:
        return Page.of(Sentence(f"never fired on the catalogue's {catalog.tokens_seen:,} tokens"))
    fires = Sentence(
        f"fires on {count:,} of {catalog.tokens_seen:,} tokens ({count / catalog.tokens_seen:.2%}), at most {most:.3g}"
    )
    said = [Sentence(sentence(e)) for e in explanations(catalog, index)]
    examples = [strip(example, most) for example in chosen(catalog.examples(index))]
    return Page((fires, *said, *logits(catalog, index), *examples, neighbours(catalog, index)))


def notes_of(catalog: Catalog) -> Notes | None:
    path = catalog.folder / "notes.sqlite"
    return Notes(path) if path.is_file() else None


def explanations(catalog: Catalog, index: int) -> list[Explanation]:
    notes = notes_of(catalog)
    return notes.of(index) if notes else []


def sentence(said: Explanation) -> str:
    return (
        f"{said.text} — balanced accuracy {said.score:.2f} on held-out text "
        f"(95% interval {said.low:.2f} to {said.high:.2f}; chance {said.chance:.2f}, "
        f"best rule on the token alone {said.baseline:.2f}; {said.method})"
    )


def logits(catalog: Catalog, index: int) -> Iterator[Sentence]:
    """The tokens it promotes and suppresses, where the catalogue knows them."""
    for name, key in (("promotes", "logits_top"), ("suppresses", "logits_bottom")):
        if key in catalog.components:
            tokens = [f"`{visible(catalog.vocabulary[i])}`" for i in catalog.components[key][index].tolist()]
            yield Sentence(f"{name} {' '.join(tokens)}")


def chosen(examples: Iterator[Example]) -> Iterator[Example]:
    """The strongest few, then one of each fifth of the ranks."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example)
    for group, found in groups.items():
        yield from islice(found, STRONGEST if group == "top" else EACH_FIFTH)


def strip(example: Example, most: float) -> Strip:
    first, last = max(0, example.position - BEFORE), example.position + AFTER
    shown = zip(example.tokens[first:last], example.values[first:last], strict=True)
    cells = [
        Cell(visible(token), value / most, f"{visible(token)}  {value:.3g}" if value else "") for token, value in shown
    ]
    return Strip(cells, example.position - first, f"{example.group}  {example.values[example.position]:.3g}")


def neighbours(catalog: Catalog, index: int) -> Table:
    notes = notes_of(catalog)
    near = catalog.components["neighbours"][index][:NEAREST].tolist()
    cosine = catalog.components["neighbour_cosine"][index][:NEAREST].tolist()
    best = notes.best(near) if notes and near else {}
    rows = [
        [str(i), Cell(f"{c:+.2f}", c), best[i].text if i in best else ""] for i, c in zip(near, cosine, strict=True)
    ]
    return Table(("nearest", "cosine", "its explanation"), rows, numeric=(0, 1))
