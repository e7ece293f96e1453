"""What a circuit run has written, for its page: circuit.json, with every unit taken apart into its two ends."""

from pydantic import BaseModel

from microtome.browser.cards import finite, run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun, NotYet
from microtome.store.records import Circuit, FaithfulnessCurve, Judged


class Place(BaseModel):
    """What writes or reads: the embedding (layer -1), a head, an MLP (head -1), or the logits (the layer after all)."""

    name: str
    layer: int
    head: int


class Unit(BaseModel):
    """An edge from one place to another, or a place alone. `score` is what the measure loses without it.

    `role` is what of a head reads: q, k or v; of grouped keys and values, `target` is the group's number.
    """

    name: str
    score: float
    source: int
    target: int | None
    role: str


class CircuitCurve(BaseModel):
    """Columns: so many of the first units, how faithful they are, and as many drawn at random (95% and the mean)."""

    counts: list[int]
    faithfulness: list[float | None]
    low: list[float | None]
    mean: list[float | None]
    high: list[float | None]


class CircuitPage(BaseModel):
    """A circuit: the first `count` of the units, strongest first; `places` are all that the network has."""

    card: RunCard
    task: str
    method: str
    kind: str
    measure: str
    example: list[str]
    training_pairs: int
    held_out_pairs: int
    whole: float | None
    nothing: float | None
    layers: int
    heads: int
    total: int
    count: int
    reached: int
    places: list[Place]
    units: list[Unit]
    curve: CircuitCurve
    judged: Judged


def circuit_page(run: FoundRun) -> CircuitPage:
    """The circuit of a run. Raises NotYet where there is none, or none that can be read."""
    held = run.record(Circuit)
    places = places_of(held)
    at = {place.name: number for number, place in enumerate(places)}
    return CircuitPage(
        card=run_card(run), task=held.task, method=held.method, kind=held.kind, measure=held.measure,
        example=held.example, training_pairs=held.training_pairs, held_out_pairs=held.held_out_pairs,
        whole=finite(held.whole), nothing=finite(held.nothing), layers=held.layers, heads=held.heads,
        total=held.total, count=held.count, reached=held.reached, places=places,
        units=[unit(held, n, s, at) for n, s in zip(held.units, held.scores, strict=False)],
        curve=curve(held.curve), judged=held.judged,
    )  # fmt: skip


def curve(held: FaithfulnessCurve) -> CircuitCurve:
    """The curve as columns, None for what is no number."""
    columns = (held.faithfulness, held.low, held.mean, held.high)
    faithfulness, low, mean, high = ([finite(x) for x in column] for column in columns)
    return CircuitCurve(counts=held.counts, faithfulness=faithfulness, low=low, mean=mean, high=high)


def places_of(held: Circuit) -> list[Place]:
    """The embedding, each layer's heads and MLP, and the logits where units are edges."""
    inner = [
        Place(name=f"m{layer}" if head < 0 else f"a{layer}.h{head}", layer=layer, head=head)
        for layer in range(held.layers)
        for head in (*range(held.heads), -1)
    ]
    if held.kind == "nodes":
        return inner
    return [Place(name="input", layer=-1, head=-1), *inner, Place(name="logits", layer=held.layers, head=-1)]


def unit(held: Circuit, name: str, score: float, at: dict[str, int]) -> Unit:
    """Raises NotYet for a name that the network has no place for."""
    writer, _, reader = name.partition("->")
    target, role = split(reader)
    if role in ("k", "v") and held.kv_heads < held.heads:
        target = first_of_group(target, held.heads // held.kv_heads)
    if writer not in at or (target and target not in at):
        raise NotYet(f"circuit.json names the unit {name!r}, for which its network has no place. Write it again.")
    return Unit(
        name=name, score=finite(score) or 0.0, source=at[writer], target=at[target] if target else None, role=role
    )


def split(reader: str) -> tuple[str, str]:
    """`a1.h2<q>` as the head and what of it reads."""
    place, _, role = reader.partition("<")
    return place, role.rstrip(">")


def first_of_group(target: str, size: int) -> str:
    """The first query head of a group that shares these keys and values."""
    layer, _, head = target.partition(".h")
    return f"{layer}.h{int(head) * size}"
