"""What a study has written, for its page: its claims, and the page of its own, shown in a frame that can do nothing."""

from fastapi.responses import FileResponse
from pydantic import BaseModel

from microtome.browser.cards import finite, run_card
from microtome.browser.replies import RunCard
from microtome.browser.runs import FoundRun, NotYet
from microtome.store.records import Result

FILE = "page.html"
# A study's page is text of our own making, yet whoever sent the folder may have written it: no script, no request, no
# form, an origin of its own, and a frame of this server alone around it.
POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"


class ClaimShown(BaseModel):
    """One claim. `expected` is in words, tolerance and all."""

    name: str
    expected: str
    found: float | None
    ok: bool
    source: str


class StudyPage(BaseModel):
    """A study's claims. `drawn` says whether it left a page of its own."""

    card: RunCard
    study: str
    paper: str
    seconds: float
    claims: list[ClaimShown]
    settings: dict[str, str]
    version: str
    drawn: bool


def study_page(run: FoundRun) -> StudyPage:
    """The claims of a study. Raises NotYet where there are none, or none that can be read."""
    held = run.record(Result)
    claims = [
        ClaimShown(
            name=c.name, ok=c.ok, source=c.source, found=finite(c.found),
            expected=c.expected if isinstance(c.expected, str) else f"{c.expected:g} ± {c.tolerance:g}",
        )
        for c in held.claims
    ]  # fmt: skip
    return StudyPage(
        card=run_card(run), study=held.study, paper=held.paper, seconds=finite(held.seconds) or 0.0, claims=claims,
        settings={name: str(value) for name, value in held.arguments.items() if value not in ([], None)},
        version=held.version, drawn=has_own(run),
    )  # fmt: skip


def has_own(run: FoundRun) -> bool:
    return (run.folder / FILE).is_file() and run.leads_inside(run.folder / FILE)


def own_page(run: FoundRun) -> FileResponse:
    """The page that the study wrote. Raises NotYet where there is none."""
    if run.leads_out or not has_own(run):
        raise NotYet(run.message or f"This study has left no {FILE}.")
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return FileResponse(run.folder / FILE, media_type="text/html; charset=utf-8", headers=headers)
