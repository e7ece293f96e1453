"""Two dictionaries side by side, for their page: which component is which, and where each can be looked at."""

from collections.abc import Iterable

from pydantic import BaseModel

from microtome.browser.cards import run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun
from microtome.store.records import Alike, Compared, Comparison


class Side(BaseModel):
    """One of the two dictionaries. `run` is the id of a run of that name on the shelf, where there is one."""

    run: str | None
    name: str
    model: str
    site: str
    density: list[float]
    said: list[str | None]


class ComparePage(BaseModel):
    """Two dictionaries, and the nearest in the second of each component of the first (-1: none), by either measure."""

    card: RunCard
    first: Side
    second: Side
    written: Alike | None
    active: Alike | None
    notes: list[str]


def compare_page(run: FoundRun, others: Iterable[FoundRun]) -> ComparePage:
    """The two dictionaries of a comparison. Raises NotYet where there is none, or none that can be read."""
    held = run.record(Comparison)
    ids = {other.folder.name: other.id for other in others if other.shows == "dictionary"}
    return ComparePage(
        card=run_card(run), first=side(held.first, ids), second=side(held.second, ids), written=held.written,
        active=held.active, notes=held.notes,
    )  # fmt: skip


def side(one: Compared, ids: dict[str, str]) -> Side:
    return Side(run=ids.get(one.name), **one.model_dump())
