"""The card of a dictionary, for its page: every score beside those of its baselines, and where its components are."""

from collections.abc import Iterable

from pydantic import BaseModel

from microtome.browser.cards import run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun
from microtome.store.records import Card


class ScoresPage(BaseModel):
    """What was measured. `run` is the id of the dissection that the dictionary is of, where it is on the shelf."""

    card: RunCard
    run: str | None
    measured: Card


def scores_page(run: FoundRun, others: Iterable[FoundRun]) -> ScoresPage:
    """The card that `eval` wrote. Raises NotYet where there is none, or none that can be read."""
    held = run.record(Card)
    return ScoresPage(card=run_card(run), run=dissection_of(held, others), measured=held)


def dissection_of(held: Card, others: Iterable[FoundRun]) -> str | None:
    """The one run whose folder is named as the dictionary's is, of the same model, site and width; or None."""
    named = held.dictionary.rstrip("/").removesuffix("/dictionary").rsplit("/", 1)[-1]
    fitting = [
        other.id
        for other in others
        if other.shows == "dictionary" and other.folder.name == named and other.summary is not None
        and (other.summary.model, other.summary.site, other.summary.width) == (held.model, held.site, held.width)
    ]  # fmt: skip
    return fitting[0] if len(fitting) == 1 else None
