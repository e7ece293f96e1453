"""What is served under /api, by noun: every answer is read from a run's files, or asked of its live model."""

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, JSONResponse

from microtome.browser.cards import run_card, run_page
from microtome.browser.circuits import CircuitPage, circuit_page
from microtome.browser.comparisons import ComparePage, compare_page
from microtome.browser.dynamics import DynamicsPage, dynamics_page
from microtome.browser.graphs import effect_grid, explanations_beside, exported, graph_page
from microtome.browser.live import Live
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
    Question,
    RunList,
    RunPage,
    SessionState,
)
from microtome.browser.scores import ScoresPage, scores_page
from microtome.browser.shelf import Shelf
from microtome.browser.studies import StudyPage, own_page, study_page

FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}


def routes(shelf: Shelf, live: Live) -> APIRouter:
    """Everything under /api."""
    api = APIRouter()
    for part in (of_runs(shelf), of_catalogues(shelf), of_graphs(shelf), of_results(shelf), of_sessions(shelf, live)):
        api.include_router(part)
    return api


def of_runs(shelf: Shelf) -> APIRouter:
    """The list of runs, and one of them."""
    api = APIRouter()

    @api.get("/runs")
    def runs() -> RunList:
        return RunList(folder=shelf.runs.root.name, runs=[run_card(run) for run in shelf.runs.find()])

    @api.get("/runs/{id}")
    def run(id: str) -> RunPage:
        found = shelf.runs[id]
        return run_page(found, shelf.maybe(found))

    return api


def of_catalogues(shelf: Shelf) -> APIRouter:
    """What a dissection's catalogue holds: its components, and searches for them."""
    api = APIRouter()

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

    @api.get("/runs/{id}/search/example")
    def example(id: str, text: str) -> Found:
        return shelf.opened(id).search_example(text)

    return api


def of_graphs(shelf: Shelf) -> APIRouter:
    """An attribution graph, for its page and as a file."""
    api = APIRouter()

    @api.get("/runs/{id}/graph")
    def graph(id: str) -> GraphPage:
        found = shelf.readable(id)
        return graph_page(found, explanations_beside(found, shelf.runs.find()))

    @api.get("/runs/{id}/graph.json")
    def graph_file(id: str, groups: str = "[]", pinned: str = "") -> JSONResponse:
        """The graph as a file, in the schema of circuit-tracer and Neuronpedia, with the groups of the page."""
        found = shelf.readable(id)
        held = exported(found, groups, pinned)
        return JSONResponse(held, headers={"Content-Disposition": f'attachment; filename="{found.id}.json"'})

    return api


def of_results(shelf: Shelf) -> APIRouter:
    """What the other commands wrote, each for its own page."""
    api = APIRouter()

    @api.get("/runs/{id}/patch")
    def patch(id: str) -> EffectGrid:
        return effect_grid(shelf.readable(id))

    @api.get("/runs/{id}/circuit")
    def circuit(id: str) -> CircuitPage:
        return circuit_page(shelf.readable(id))

    @api.get("/runs/{id}/parts")
    def parts(id: str) -> PartsPage:
        return parts_page(shelf.readable(id))

    @api.get("/runs/{id}/parts/{part}")
    def part(id: str, part: int) -> PartCard:
        return part_card(shelf.readable(id), part)

    @api.get("/runs/{id}/study")
    def study(id: str) -> StudyPage:
        return study_page(shelf.readable(id))

    @api.get("/runs/{id}/page.html", response_class=FileResponse)
    def drawn(id: str) -> FileResponse:
        """The page that a study wrote, under a policy of its own: it can do nothing but be read."""
        return own_page(shelf.readable(id))

    @api.get("/runs/{id}/dynamics")
    def dynamics(id: str) -> DynamicsPage:
        return dynamics_page(shelf.readable(id))

    @api.get("/runs/{id}/card")
    def card(id: str) -> ScoresPage:
        return scores_page(shelf.readable(id), shelf.runs.find())

    @api.get("/runs/{id}/compare")
    def compare(id: str) -> ComparePage:
        return compare_page(shelf.readable(id), shelf.runs.find())

    return api


def of_sessions(shelf: Shelf, live: Live) -> APIRouter:
    """What a live model is asked."""
    api = APIRouter()

    @api.get("/runs/{id}/session")
    def session(id: str) -> SessionState:
        return live.state(shelf.runs[id].folder)

    @api.post("/runs/{id}/fire")
    def fire(id: str, question: Question) -> Fired:
        return live.ask(shelf.readable(id).folder, question)

    @api.post("/runs/{id}/intervene")
    def intervene(id: str, asked: Intervention) -> Intervened:
        return live.intervene(shelf.readable(id).folder, asked)

    return api
