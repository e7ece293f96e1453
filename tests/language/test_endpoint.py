"""An endpoint answers, or one sentence says why not; the key goes nowhere but where it belongs."""

import json
import threading

import numpy as np
import pytest

from microtome.core.errors import Refusal
from microtome.language.ask import NoAnswer, Prompt
from microtome.language.endpoint import Endpoint
from tests.language.endpoint import Reply, message, serving

PROMPT = Prompt("You count.", "How many?", 8, "[1]")


def silent(seconds: float) -> None:
    pass


def endpoint(address: str, **settings) -> Endpoint:
    return Endpoint(address, "tiny", wait=silent, **settings)


def test_what_is_asked_and_what_is_said() -> None:
    with serving(lambda text: message(f"you said {text}", {"prompt_tokens": 7, "completion_tokens": 3})) as fake:
        answer = endpoint(fake.address).say(PROMPT)
    assert (answer.text, answer.prompt_tokens, answer.answer_tokens) == ("you said How many?", 7, 3)
    path, headers, body = fake.asked[0]
    assert path == "/v1/chat/completions" and "Authorization" not in headers
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 8, 0.0)
    assert [m["content"] for m in body["messages"]] == ["You count.", "How many?"]


def test_tokens_that_the_server_does_not_count_are_estimated_from_above() -> None:
    with serving(lambda text: (200, json.dumps({"choices": [{"message": {"content": "four"}}]}).encode(), {})) as fake:
        answer = endpoint(fake.address).say(PROMPT)
    assert answer.prompt_tokens == PROMPT.tokens > len((PROMPT.system + PROMPT.text).split())
    assert 1 <= answer.answer_tokens <= PROMPT.most


def test_a_busy_server_is_asked_again_after_the_time_it_names() -> None:
    waits, replies = [], [(429, b"slow down", {"Retry-After": "4"}), (503, b"", {}), message("yes")]
    with serving(lambda text: replies.pop(0)) as fake:
        assert Endpoint(fake.address, wait=waits.append).say(PROMPT).text == "yes"
    assert waits == [4.0, 2.0]


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        ((200, b"<html>hello", {}), "answered '<html>hello', which is no JSON; look at the server"),
        ((200, b'{"choices": []}', {}), "answered without a message"),
        ((200, b"[1, 2]", {}), "answered without a message"),
        ((401, b"who?", {}), "refused the key (HTTP 401); put a valid one into MICROTOME_API_KEY"),
        ((404, b"no such model", {}), "answered HTTP 404 ('no such model'); look at the server"),
        ((500, b"oh", {}), "answered HTTP 500 ('oh'), 2 times; look at the server"),
        ((302, b"", {"Location": "http://127.0.0.1:1/"}), "answered HTTP 302"),
    ],
)
def test_what_goes_wrong_is_one_sentence(reply: Reply, sentence: str) -> None:
    with serving(lambda text: reply) as fake, pytest.raises(NoAnswer) as caught:
        endpoint(fake.address, tries=2).say(PROMPT)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    go = threading.Event()

    def wait(text: str) -> Reply:
        go.wait(5)
        return message("late")

    with serving(wait) as fake:
        with pytest.raises(NoAnswer, match=r"did not answer within 0.1 s, 2 times"):
            endpoint(fake.address, seconds=0.1, tries=2).say(PROMPT)
        go.set()
    assert len(fake.asked) == 2


def test_nobody_there() -> None:
    with serving(lambda text: message("x")) as fake:
        pass
    with pytest.raises(NoAnswer, match="nobody answers at http://127"):
        endpoint(fake.address, tries=1).say(PROMPT)


def test_the_key_comes_from_the_environment_and_is_sent_to_the_address_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROTOME_API_KEY", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nothing answers there: a proxy would be noticed
    with (
        serving(lambda text: message("yes")) as other,
        serving(lambda text: (307, b"", {"Location": f"{other.address}/chat/completions"})) as fake,
        pytest.raises(NoAnswer, match="HTTP 307"),
    ):
        endpoint(fake.address).say(PROMPT)
    assert fake.asked[0][1]["Authorization"] == "Bearer secret" and not other.asked
    assert "secret" not in repr(endpoint(fake.address))


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:8080", "is no address; give one such as"),
        ("file:///etc/passwd", "is no address"),
        ("https://user:secret@models.example/v1", "holds a key or a query; put the key into MICROTOME_API_KEY"),
        ("http://models.example/v1", "would travel to models.example in the clear; give an https address"),
    ],
)
def test_an_address_that_is_none_or_unsafe_is_refused(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROTOME_API_KEY", "secret")
    with pytest.raises(Refusal) as caught:
        Endpoint(address)
    assert sentence in str(caught.value) and "secret" not in str(caught.value)


def test_texts_are_embedded_in_their_order() -> None:
    rows = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [1.0, 0.0]}]
    with serving(lambda text: (200, json.dumps({"data": rows}).encode(), {})) as fake:
        np.testing.assert_array_equal(endpoint(fake.address).embed(["a", "b"]), [[1.0, 0.0], [0.0, 2.0]])
        with pytest.raises(NoAnswer, match="gave no 3 vectors for 3 texts"):
            endpoint(fake.address).embed(["a", "b", "c"])
