"""The browser's server: runs on disk and a live model, as JSON and a page, for one reader on this machine.

Everything under /api is read from a run's files, except `fire` and `intervene`, which ask a live model. Every error is
one sentence.
"""

import json
import secrets
import socket
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from safetensors import SafetensorError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.staticfiles import StaticFiles

from microtome.browser.cards import Opened, run_card, run_page
from microtome.browser.circuits import CircuitPage, circuit_page
from microtome.browser.dynamics import DynamicsPage, dynamics_page
from microtome.browser.graphs import effect_grid, explanations_beside, exported, graph_page
from microtome.browser.guard import LOOPBACK, Guard
from microtome.browser.live import CannotAnswer, CannotOpen, Live, Opener
from microtome.browser.parts import PartCard, PartsPage, part_card, parts_page
from microtome.browser.replies import (
    ComponentCard,
    Components,
    EffectGrid,
    Fired,
    Found,
    GraphPage,
    Intervened,
    Intervention,
    Problem,
    Question,
    RunList,
    RunPage,
    SessionState,
)
from microtome.browser.runs import FoundRun, NoSuchRun, NotYet, Runs
from microtome.browser.studies import StudyPage, own_page, study_page
from microtome.core.errors import NoSuchComponent, Refusal

STATIC = Path(__file__).parent / "static"
NO_PAGE = (
    "The page has not been built: run `python hatch_build.py` in Microtome's source folder. /api works without it."
)
FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}
FRESH = {"Cache-Control": "no-cache"}
BROKEN = (SafetensorError, FileNotFoundError, json.JSONDecodeError, sqlite3.Error)  # what half a file raises
REFUSALS: dict[int | str, dict] = {status: {"model": Problem} for status in (404, 409, 422, 503)}


class PortTaken(Refusal, OSError):
    """Another program listens on the port that was asked for."""


class Shelf:
    """The runs of one folder with their opened catalogues, each opened at most once for each time it is written."""

    def __init__(self, folder: Path) -> None:
        self.runs = Runs(folder)
        self._opened: dict[str, Opened] = {}

    def opened(self, id: str) -> Opened:
        """The catalogue of a run. Raises NoSuchRun, or NotYet where it has none."""
        run, kept = self.runs[id], self._opened.get(id)
        if not run.has_catalog:
            raise NotYet(run.message)
        if kept is None or kept.written != run.written:
            self._opened[id] = kept = open_whole(run)
        return kept

    def maybe(self, run: FoundRun) -> Opened | None:
        try:
            return self.opened(run.id)
        except NotYet:
            return None


def open_whole(run: FoundRun) -> Opened:
    try:
        return Opened(run)
    except BROKEN as error:
        raise NotYet(broken(error)) from error


def broken(error: Exception) -> str:
    return f"A file of this run cannot be read ({error}): it is being written just now, or its writing was cut off."


def create_app(folder: Path, token: str, open_session: Opener, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The app that shows the runs under `folder` to whoever holds `token`.

    `open_session` is called with a run's folder at its first question. `hosts` are the names it answers to.
    """
    app = FastAPI(title="Microtome", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.include_router(routes(Shelf(folder), Live(open_session)), prefix="/api", responses=REFUSALS)
    app.add_api_route("/", index, include_in_schema=False)
    app.mount("/", StaticFiles(directory=STATIC, check_dir=False))
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)
    app.add_middleware(Guard, token=token, hosts=hosts)
    return app


def routes(shelf: Shelf, live: Live) -> APIRouter:
    api = APIRouter()

    @api.get("/runs")
    def runs() -> RunList:
        return RunList(folder=shelf.runs.root.name, runs=[run_card(run) for run in shelf.runs.find()])

    @api.get("/runs/{id}")
    def run(id: str) -> RunPage:
        found = shelf.runs[id]
        return run_page(found, shelf.maybe(found))

    @api.get("/runs/{id}/vocabulary")
    def vocabulary(id: str, response: Response) -> list[str]:
        """The text of every token id. Ask with ?catalog= as the run's page gives it: the answer is kept for good."""
        response.headers.update(FOR_GOOD)
        return shelf.opened(id).catalog.vocabulary

    @api.get("/runs/{id}/components")
    def components(id: str) -> Components:
        return shelf.opened(id).components()

    @api.get("/runs/{id}/components/{component}")
    def component(id: str, component: int) -> ComponentCard:
        return shelf.opened(id).card(component)

    @api.get("/runs/{id}/search/words")
    def words(id: str, words: str) -> Found:
        return shelf.opened(id).search_words(words)

    @api.get("/runs/{id}/search/token")
    def token(id: str, token: str) -> Found:
        return shelf.opened(id).search_token(token)

    @api.get("/runs/{id}/graph")
    def graph(id: str) -> GraphPage:
        found = openable(shelf.runs[id])
        return graph_page(found, explanations_beside(found, shelf.runs.find()))

    @api.get("/runs/{id}/graph.json")
    def graph_file(id: str, groups: str = "[]", pinned: str = "") -> JSONResponse:
        """The graph as a file, in the schema of circuit-tracer and Neuronpedia, with the groups of the page."""
        found = openable(shelf.runs[id])
        held = exported(found, groups, pinned)
        return JSONResponse(held, headers={"Content-Disposition": f'attachment; filename="{found.id}.json"'})

    @api.get("/runs/{id}/patch")
    def patch(id: str) -> EffectGrid:
        return effect_grid(openable(shelf.runs[id]))

    @api.get("/runs/{id}/circuit")
    def circuit(id: str) -> CircuitPage:
        return circuit_page(openable(shelf.runs[id]))

    @api.get("/runs/{id}/parts")
    def parts(id: str) -> PartsPage:
        return parts_page(openable(shelf.runs[id]))

    @api.get("/runs/{id}/parts/{part}")
    def part(id: str, part: int) -> PartCard:
        return part_card(openable(shelf.runs[id]), part)

    @api.get("/runs/{id}/study")
    def study(id: str) -> StudyPage:
        return study_page(openable(shelf.runs[id]))

    @api.get("/runs/{id}/page.html", response_class=FileResponse)
    def drawn(id: str) -> FileResponse:
        """The page that a study wrote, under a policy of its own: it can do nothing but be read."""
        return own_page(openable(shelf.runs[id]))

    @api.get("/runs/{id}/dynamics")
    def dynamics(id: str) -> DynamicsPage:
        return dynamics_page(openable(shelf.runs[id]))

    @api.get("/runs/{id}/session")
    def session(id: str) -> SessionState:
        return live.state(shelf.runs[id].folder)

    @api.post("/runs/{id}/fire")
    def fire(id: str, question: Question) -> Fired:
        return live.ask(openable(shelf.runs[id]).folder, question)

    @api.post("/runs/{id}/intervene")
    def intervene(id: str, asked: Intervention) -> Intervened:
        return live.intervene(openable(shelf.runs[id]).folder, asked)

    return api


def openable(run: FoundRun) -> FoundRun:
    if run.state == "unreadable":
        raise NotYet(run.message)
    return run


def index() -> FileResponse:
    page = STATIC / "index.html"
    if not page.is_file():
        raise HTTPException(503, NO_PAGE)
    return FileResponse(page, headers=FRESH)


def refusing(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status)

    return answer


def refuse_broken(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": broken(error)}, 409)


def refuse_question(request: Request, error: Exception) -> JSONResponse:
    """A badly formed request, as a sentence instead of pydantic's list."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": f"The request is not understood. {'; '.join(faults)}."}, 422)


def refuse_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    sentence = "There is nothing at this address." if error.detail == "Not Found" else error.detail
    return JSONResponse({"detail": sentence}, error.status_code)


ANSWERS: dict[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    NoSuchRun: refusing(404),
    NoSuchComponent: refusing(404),
    CannotAnswer: refusing(422),
    CannotOpen: refusing(503),
    **dict.fromkeys(BROKEN, refuse_broken),
    Refusal: refusing(409),
    RequestValidationError: refuse_question,
    StarletteHTTPException: refuse_http,
}


def serve(
    folder: Path,
    *,
    open_session: Opener,
    announce: Callable[[str], None],
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
) -> None:
    """Serve the runs under `folder` until interrupted; port 0 takes any free one.

    `announce` is called once, with the one line that says where, as soon as connections are accepted. Raises PortTaken.
    """
    token = token or secrets.token_urlsafe(24)
    open_to_all = host not in LOOPBACK
    app = create_app(folder, token, open_session, (*LOOPBACK, host, *(own_addresses() if open_to_all else ())))
    listening = listen(host, port)
    if open_to_all:
        warnings.warn(f"listening on {host}: who reaches this machine and has the token reads the runs", stacklevel=2)
    name = "127.0.0.1" if host == "0.0.0.0" else host
    announce(f"Microtome is at http://{name}:{listening.getsockname()[1]}/?token={token}")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTaken, naming the port and the remedy."""
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        why = error.strerror or error
        remedy = "choose another port, or 0 for any free one"
        raise PortTaken(f"cannot listen on port {port} of {host} ({why}); {remedy}") from error


def own_addresses() -> tuple[str, ...]:
    """The names under which other machines know this one."""
    name = socket.gethostname()
    try:
        return name, *socket.gethostbyname_ex(name)[2]
    except OSError:
        return (name,)
