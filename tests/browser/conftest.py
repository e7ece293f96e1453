"""A folder with one finished run, one that stopped, one that is broken; and the app that shows them."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from microtome.browser.server import create_app
from tests.browser.sample import SampleSession, write_run, write_unfinished

TOKEN = "a-token-for-the-tests-only"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    write_run(root / "specimen-8")
    write_unfinished(root / "deeper" / "specimen-16")
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text('{"schema": "microtome/ru')
    return root


@pytest.fixture(scope="session")
def app(folder: Path) -> FastAPI:
    return create_app(folder, TOKEN, SampleSession)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """A client that is let in."""
    return TestClient(app, base_url="http://127.0.0.1:8000", headers={"Authorization": f"Bearer {TOKEN}"})


@pytest.fixture
def done(client: TestClient) -> str:
    """The address of the finished run's part of the API."""
    cards = client.get("/api/runs").json()["runs"]
    return "/api/runs/" + next(card["id"] for card in cards if card["state"] == "done")


@pytest.fixture(scope="session")
def address(app: FastAPI) -> Iterator[str]:
    """The app on a real port, for a real browser."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=5)
