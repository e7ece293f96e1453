"""The browser's server: runs on disk and a live model, as JSON and a page, for one reader on this machine.

Everything under /api is read from a run's files, except `fire` and `intervene`, which ask a live model. Every error is
one sentence.
"""

import secrets
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from microtome.browser.guard import LOOPBACK, Guard
from microtome.browser.live import Live, Opener
from microtome.browser.refusals import ANSWERS
from microtome.browser.replies import Problem
from microtome.browser.routes import routes
from microtome.browser.shelf import Shelf
from microtome.core.errors import Refusal

STATIC = Path(__file__).parent / "static"
NO_PAGE = (
    "The page has not been built: run `python hatch_build.py` in Microtome's source folder. /api works without it."
)
FRESH = {"Cache-Control": "no-cache"}
REFUSALS: dict[int | str, dict] = {status: {"model": Problem} for status in (404, 409, 422, 503)}


class PortTaken(Refusal, OSError):
    """Another program listens on the port that was asked for."""


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


def index() -> FileResponse:
    """The page itself, where it has been built."""
    page = STATIC / "index.html"
    if not page.is_file():
        raise HTTPException(503, NO_PAGE)
    return FileResponse(page, headers=FRESH)


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
