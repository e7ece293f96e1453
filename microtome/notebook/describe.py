"""Every noun as a page: one function for each type."""

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch

from microtome.core.codes import Codes
from microtome.core.component import Component, Dictionary
from microtome.core.edit import Edit
from microtome.core.effects import Effect, Effects, Grid
from microtome.core.errors import Refusal
from microtome.core.inputs import Arrays, Tokens
from microtome.core.measure import Measure
from microtome.core.model import Model
from microtome.core.site import Site, spell
from microtome.core.trace import Trace
from microtome.notebook import cards
from microtome.notebook.page import Cell, Heading, Page, Sentence, Strip, Table, shortened, visible
from microtome.store.catalog import Catalog
from microtome.store.notes import Explanation
from microtome.store.records import Checked, Figures, Summary

MOST_ROWS = 40
STRONGEST = 6  # components named at each place


@singledispatch
def describe(thing: object) -> Page:
    """The page of a thing: what `show` displays. Of a type that is not known, what Python says of it."""
    return model_page(thing) if isinstance(thing, Model) else Page.of(Sentence(repr(thing)))


@describe.register(Page)
def _(page: Page) -> Page:
    return page


@describe.register(list)
@describe.register(tuple)
def _(things: Sequence) -> Page:
    if things and all(isinstance(thing, Site) for thing in things):
        return Page.of(Table(("site", "axes"), shortened([site_row(s) for s in things], MOST_ROWS, 2)))
    return sum((describe(thing) for thing in things), Page(()))


# ---------------------------------------------------------------- models and sites


def model_page(model: Model) -> Page:
    """The kinds of sites a model has, with the layers they are in."""
    kinds: dict[tuple[str, str], list[int | None]] = {}
    for site in model.sites():
        kind = site.name if site.layer is None else site.name.rpartition(".")[0]
        kinds.setdefault((kind, site.axes), []).append(site.layer)
    rows = [[kind, spread(layers), axes] for (kind, axes), layers in kinds.items()]
    name = getattr(model, "name", type(model).__name__)
    return Page.of(Heading(f"model {name}"), Table(("site", "layers", "axes"), rows, f"{len(model.sites())} sites"))


def spread(layers: list[int | None]) -> str:
    return "" if layers[0] is None else str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"


@describe.register(Site)
def _(site: Site) -> Page:
    return Page.of(Sentence(f"`{site}`, with axes {site.axes}"))


def site_row(site: Site) -> list[str]:
    return [str(site), site.axes]


@describe.register(Trace)
def _(trace: Trace) -> Page:
    rows = [[str(s), s.axes, sizes(trace[s.name]), kind(trace[s.name]), size(trace[s.name])] for s in trace.sites]
    table = Table(("site", "axes", "shape", "dtype", "root mean square"), shortened(rows, MOST_ROWS, 5), numeric=(2, 4))
    return Page.of(Heading(f"trace of {rows_of(len(trace.inputs))}"), table)


def rows_of(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def sizes(x: torch.Tensor) -> str:
    return " × ".join(map(str, x.shape))


def kind(x: torch.Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


@torch.no_grad()
def size(x: torch.Tensor) -> str:
    """What a mask has put out of reach, at the lowest number there is, is not counted."""
    x = x[x > torch.finfo(x.dtype).min / 2] if x.is_floating_point() else x
    return f"{x.double().pow(2).mean().sqrt():.3g}"


# ---------------------------------------------------------------- inputs


@describe.register(Tokens)
def _(tokens: Tokens) -> Page:
    rows = [
        [str(i), str(int(mask.sum())), ids_of(ids[mask].tolist())]
        for i, (ids, mask) in enumerate(zip(tokens.ids, tokens.mask, strict=True))
    ]
    return Page.of(Table(("row", "tokens", "ids"), shortened(rows, MOST_ROWS, 3), numeric=(0, 1)))


def ids_of(ids: list[int], most: int = 24) -> str:
    return " ".join(map(str, ids[:most])) + (f" … {len(ids) - most:,} more" if len(ids) > most else "")


def read_by(model: object, thing: object) -> Page:
    """Tokens, or the tokens of a trace, as the model's tokenizer spells them, with ids and positions on hover."""
    tokens = thing.inputs if isinstance(thing, Trace) else thing
    if not isinstance(tokens, Tokens):
        raise Refusal(f"a model can read tokens, not a {type(thing).__name__}; leave `model` out")
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise Refusal(
            f"{getattr(model, 'name', 'the model')} has no tokenizer, so it cannot read tokens; leave `model` out"
        )
    return Page(
        tuple(row_strip(ids[mask].tolist(), tokenizer) for ids, mask in zip(tokens.ids, tokens.mask, strict=True))
    )


def row_strip(ids: list[int], tokenizer: Any) -> Strip:
    texts = [visible(tokenizer.decode([i])) for i in ids]
    return Strip(
        [
            Cell(text, 0.12 if place % 2 else 0.0, f"position {place}: token {i}")
            for place, (i, text) in enumerate(zip(ids, texts, strict=True))
        ]
    )


@describe.register(Arrays)
def _(arrays: Arrays) -> Page:
    rows = [[str(i), sizes(x), kind(x)] for i, x in enumerate(arrays.tensors)]
    return Page.of(Table(("argument", "shape", "dtype"), rows, numeric=(0, 1)))


# ---------------------------------------------------------------- components


@describe.register(Component)
def _(component: Component) -> Page:
    return cards.card(component)


@describe.register(Dictionary)
@torch.no_grad()
def _(dictionary: Dictionary) -> Page:
    read, write = dictionary.directions()
    rows = [
        ["components", f"{len(read):,}"],
        ["reads", f"{', '.join(map(str, dictionary.reads))} ({read.shape[-1]} wide)"],
        [
            "writes",
            f"{', '.join(map(str, dictionary.writes))} ({write.shape[-1]} wide)" if dictionary.writes else "nothing",
        ],
        ["rank of each", str(read.shape[1])],
        ["parameters", f"{sum(p.numel() for p in dictionary.parameters()):,}"],
        *[[name, type(part).__name__] for name, part in dictionary.named_children()],
    ]
    if dictionary in cards.catalogs:
        rows.append(["catalogue", str(cards.catalogs[dictionary].folder)])
    return Page.of(Heading(type(dictionary).__name__), Sentence(equation(dictionary)), Table(("", ""), rows))


def equation(dictionary: Dictionary) -> str:
    """The first paragraph of the class's docstring, where its equation stands."""
    return " ".join((type(dictionary).__doc__ or "").strip().split("\n\n")[0].split())


@describe.register(Codes)
def _(codes: Codes) -> Page:
    places = codes.shape.numel()
    best = codes.top(STRONGEST)
    values, indices = best.values.flatten(0, -2), best.indices.flatten(0, -2)
    lead = list(torch.cartesian_prod(*[torch.arange(n) for n in codes.shape]).view(places, -1).tolist())
    rows = [
        [", ".join(map(str, lead[i])), strongest(indices[i].tolist(), values[i].tolist())]
        for i in range(min(places, MOST_ROWS))
    ]
    rows += [[f"and {places - MOST_ROWS:,} more", ""]] if places > MOST_ROWS else []
    shape = " × ".join(map(str, codes.shape))
    words = f"{codes.width:,} components at {shape} places; {float(codes.l0()):.1f} active on average"
    return Page.of(Heading(type(codes).__name__), Table(("place", "strongest components"), rows, words))


def strongest(indices: list[int], values: list[float]) -> str:
    order = sorted(zip(indices, values, strict=True), key=lambda entry: -abs(entry[1]))
    return ", ".join(f"{i} ({v:.3g})" for i, v in order if v) or "none"


# ---------------------------------------------------------------- edits, effects, measures


@describe.register(Edit)
def _(edit: Edit) -> Page:
    how = "replaces what arrives there" if edit.replaces else "adds to what arrives there"
    return Page.of(Sentence(f"{edit}: {how}"))


@describe.register(Measure)
def _(measure: Measure) -> Page:
    return Page.of(
        Sentence(f"{measure.label}: one number for each row, from {', '.join(f'`{site}`' for site in measure.reads)}")
    )


@describe.register(Effect)
def _(effect: Effect) -> Page:
    return Page.of(Sentence(str(effect)))


@describe.register(Effects)
def _(effects: Effects) -> Page:
    moved = effects.moved.mean(1).tolist()
    deepest = largest(moved)
    rows = [
        [" & ".join(map(str, cell)), f"{after:.4g}", number(value, deepest, f"moved by {value:+.6g}")]
        for cell, after, value in zip(effects.cells, effects.after.mean(1).tolist(), moved, strict=True)
    ]
    words = f"{effects.label}: {effects.before.mean():.4g} without edits, the mean of {rows_of(len(effects.before))}"
    return Page.of(Table(("edit", "with it", "moved"), shortened(rows, MOST_ROWS, 3), words, numeric=(1, 2)))


@describe.register(Grid)
def _(grid: Grid) -> Page:
    """A heat map whose numbers are written: orange is up, blue is down, an empty cell had no edit."""
    (down, row_names), (across, column_names) = grid.rows, grid.columns
    values = grid.values.tolist()
    deepest = largest([v for row in values for v in row if v == v])
    names = [spell(name) for name in column_names]
    rows = [
        [
            spell(name),
            *[
                number(v, deepest, f"{down} {spell(name)}, {across} {n}: {v:+.6g}")
                for n, v in zip(names, line, strict=True)
            ],
        ]
        for name, line in zip(row_names, values, strict=True)
    ]
    return Page.of(Table((f"{down} \\ {across}", *names), rows, numeric=range(len(names) + 1)))


def largest(values: list[float]) -> float:
    return max(map(abs, values), default=0.0) or 1.0


def number(value: float, deepest: float, hover: str) -> Cell:
    return Cell("", hover="no edit here") if value != value else Cell(f"{value:+.2f}", value / deepest, hover)


# ---------------------------------------------------------------- what lies on disk


@describe.register(Catalog)
def _(catalog: Catalog) -> Page:
    notes = cards.notes_of(catalog)
    best = notes.best() if notes else {}
    scored = sorted(best.values(), key=lambda e: -e.score)
    shown = [e.component for e in scored] or catalog.components["count"].argsort()[::-1].tolist()
    rows = [
        [str(i), f"{catalog.components['count'][i] / catalog.tokens_seen:.2%}", peaks(catalog, i), *said(best.get(i))]
        for i in shown[: MOST_ROWS // 2]
    ]
    live = int((catalog.components["count"] > 0).sum())
    about = f"{catalog.tokens_seen:,} tokens {catalog.manifest['text']}".rstrip()
    words = f"{len(catalog):,} components, {live:,} of which fired on {about}"
    columns = ("component", "fires on", "most strongly on", "explanation", "score")
    return Page.of(
        Heading(f"catalogue {catalog.folder.name}"), Sentence(words), Table(columns, rows, numeric=(0, 1, 4))
    )


def peaks(catalog: Catalog, index: int) -> str:
    tokens = catalog.windows["tokens"].reshape(-1)
    found = [int(tokens[place]) for place in catalog.components["exemplars"][index, :8].tolist() if place >= 0]
    return " ".join(f"`{visible(catalog.vocabulary[i])}`" for i in dict.fromkeys(found))


def said(one: Explanation | None) -> list[str]:
    return ["", ""] if one is None else [one.text, f"{one.score:.2f}"]


@describe.register(Summary)
def _(summary: Summary) -> Page:
    rows = [["this dictionary", *figures(summary)], *[[name, *figures(f)] for name, f in summary.baselines.items()]]
    columns = ("", "explained variance", "cross-entropy recovered", "L0", "dead", "explained")
    trained = f"{summary.width:,} components, k {summary.k}, {summary.tokens:,} training tokens"
    words = f"{summary.model}, {summary.site}: {trained}"
    return Page.of(Table(columns, rows, words, numeric=range(1, 6)))


def figures(found: Figures) -> list[str]:
    def share(x: float | None) -> str:
        return "" if x is None else f"{x:.1%}"

    return [
        f"{found.explained_variance:.3f}",
        share(found.ce_recovered),
        f"{found.l0:.1f}",
        share(found.dead_fraction),
        share(found.explained_fraction),
    ]


@describe.register(Checked)
def _(checked: Checked) -> Page:
    rows = [
        [
            s.site,
            " × ".join(map(str, s.shape)),
            s.identity,
            "" if s.error is None else f"{s.error:.1e}",
            s.reason or "ok",
        ]
        for s in checked.sites
    ]
    table = Table(
        ("site", "shape", "what was measured", "error", ""), rows, f"{checked.model} ({checked.family})", numeric=(1, 3)
    )
    lacking = [Sentence(f"lacks {name}: {why}") for name, why in checked.lacking.items()]
    return Page((table, *lacking))
