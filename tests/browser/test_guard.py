"""Every way in that a hostile page or a careless link could try, as it arrives at the server: raw paths and headers."""

import asyncio
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from microtome.browser.guard import LONGEST_BODY, Guard
from tests.browser.served import TOKEN

BEARER = {"authorization": f"Bearer {TOKEN}"}
HOST = "127.0.0.1:8000"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str


def ask(app, path: str, headers: dict[str, str], *, method: str = "GET", query: str = "", raw: str = "") -> Answer:
    """One request, past every client that would tidy it up."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": (raw or path).encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in ({"host": HOST} | headers).items()],
        "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50000),
    }  # fmt: skip
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body.decode())


@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/openapi.json", "/icon.svg", "/nowhere"])
def test_nothing_is_shown_without_the_token(app: FastAPI, path: str) -> None:
    assert ask(app, path, {}).status == 401
    assert ask(app, path, {"authorization": "Bearer wrong"}).status == 401
    assert ask(app, path, {"cookie": "microtome-8000=wrong"}).status == 401
    assert ask(app, path, {"cookie": f"microtome-9000={TOKEN}"}).status == 401


def test_the_token_admits_as_bearer_or_cookie(app: FastAPI) -> None:
    assert ask(app, "/api/runs", BEARER).status == 200
    cookies = f'other={{"odd": 1}}; microtome-8000={TOKEN}; last=1'
    assert ask(app, "/api/runs", {"cookie": cookies}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1/x?",
        "127.0.0.1@evil.example",
        "127.0.0.1:8000,evil",
        "",
        "127.0.0.1:x",
    ],
)
def test_another_name_for_this_machine_is_refused_even_with_the_token(app: FastAPI, host: str) -> None:
    assert ask(app, "/api/runs", BEARER | {"host": host}).status == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "[::1]:8000", "LOCALHOST"])
def test_this_machine_is_known_under_its_own_names_and_any_forwarded_port(app: FastAPI, host: str) -> None:
    assert ask(app, "/api/runs", BEARER | {"host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:3000"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "new-thing"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_origin_is_refused_even_with_the_token(app: FastAPI, headers: dict, method: str) -> None:
    path = "/api/runs" if method == "GET" else "/api/runs/x/fire"
    assert ask(app, path, BEARER | headers | {"content-length": "2"}, method=method).status == 403


def test_this_page_may_post_and_a_link_from_a_notebook_may_be_followed(app: FastAPI) -> None:
    own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin", "content-length": "0"}
    assert ask(app, "/api/runs/x/fire", BEARER | own, method="POST").status == 422
    link = {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(app, "/", link, query=f"token={TOKEN}").status == 303


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/../pyproject.toml", ""), ("/assets/../../server.py", ""), ("/../server.py", "/%2e%2e/server.py"),
        ("/%2e%2e/server.py", "/%252e%252e/server.py"), ("/..\\server.py", ""), ("/a/b", "/a%2fb"), ("/x\0", "/x%00"),
    ],
)  # fmt: skip
def test_no_path_climbs_out(app: FastAPI, path: str, raw: str) -> None:
    assert ask(app, path, BEARER, raw=raw).status == 404
    assert ask(app, path, {}, raw=raw).status == 401


def test_the_printed_address_becomes_a_cookie_and_a_clean_address(app: FastAPI) -> None:
    answer = ask(app, "/", {}, query=f"a=b&token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/?a=b")
    assert answer.headers["set-cookie"] == f"microtome-8000={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert TOKEN not in answer.text + answer.headers["location"]
    assert ask(app, "/", {}, query="token=wrong").status == 401


def test_the_clean_address_stays_on_this_server(app: FastAPI) -> None:
    assert ask(app, "//evil.example/", {}, query=f"token={TOKEN}").headers["location"] == "/evil.example/"


def test_a_token_in_the_address_does_not_admit_a_post(app: FastAPI) -> None:
    answer = ask(app, "/api/runs/x/fire", {"content-length": "2"}, method="POST", query=f"token={TOKEN}")
    assert answer.status == 401


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_only_reading_and_posting(app: FastAPI, method: str) -> None:
    assert ask(app, "/api/runs", BEARER, method=method).status == 405


def test_a_long_or_unmeasured_body_is_refused_unread(app: FastAPI) -> None:
    path = "/api/runs/x/fire"
    assert ask(app, path, BEARER | {"content-length": str(LONGEST_BODY + 1)}, method="POST").status == 413
    assert ask(app, path, BEARER | {"transfer-encoding": "chunked"}, method="POST").status == 411


@pytest.mark.parametrize("headers", [BEARER, {}, {"host": "evil.example"}])
def test_every_answer_carries_the_policy(app: FastAPI, headers: dict) -> None:
    answer = ask(app, "/api/runs", headers)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "unsafe" not in policy and "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_a_token_that_can_be_guessed_is_refused(app: FastAPI) -> None:
    with pytest.raises(ValueError, match="a token of 4 characters can be guessed"):
        Guard(app, "1234")


def test_websockets_are_not_passed_on() -> None:
    async def app(scope, receive, send) -> None:
        raise AssertionError("reached")

    asyncio.run(Guard(app, TOKEN)({"type": "websocket"}, None, None))
