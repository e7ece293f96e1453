"""The app over a folder of runs: for a client in this process, and on a real port for a real browser."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from microtome.browser.server import create_app
from tests.browser.sample import SampleGraphSession, SampleSession

TOKEN = "a-token-for-the-tests-only"


def sample_session(folder: Path) -> SampleSession | SampleGraphSession:
    return SampleGraphSession() if (folder / "graph.json").is_file() else SampleSession(folder)


def app_of(folder: Path, open_session: Callable = sample_session) -> FastAPI:
    return create_app(folder, TOKEN, open_session)


def client_of(folder: Path, open_session: Callable = sample_session) -> TestClient:
    """A client that is let in."""
    return admitted(app_of(folder, open_session))


def admitted(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8000", headers={"Authorization": f"Bearer {TOKEN}"})


def cards(client: TestClient) -> dict[str, dict]:
    """The list of runs, by name."""
    return {card["name"]: card for card in client.get("/api/runs").json()["runs"]}


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the app on a free port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=5)
