"""A language model at an address that speaks as OpenAI's do: llama.cpp, vLLM, Ollama, LM Studio, or a hosted one.

POST ADDRESS/chat/completions and ADDRESS/embeddings, by the standard library alone. Only the address that was given is
ever spoken to: no proxy is used and no redirect followed. The key is read from the environment when a request is
made, never kept, never written, and sent over http to this machine only.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException, HTTPMessage
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import numpy as np
from jaxtyping import Float

from microtome.core.errors import Refusal
from microtome.language.ask import Answer, NoAnswer, Prompt, estimated, quoted

KEY = "MICROTOME_API_KEY"
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # worth trying again
LONGEST_WAIT = 30.0  # seconds between tries
MOST_BYTES = 32_000_000  # of a reply


class Stay(HTTPRedirectHandler):
    """Follows no redirect: the key and the text would go where nobody sent them."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str) -> None:
        """Follow nothing: what was asked would go to a stranger."""
        return None


@dataclass(frozen=True)
class Endpoint:
    """A model at an address such as http://127.0.0.1:8080/v1.

    `seconds` bounds each try, `tries` their number; between them it waits 1, 2, 4 … seconds, or as long as the server
    asks. Raises Refusal for an address that is none, or a key that would travel in the clear.
    """

    address: str
    model: str = "default"
    seconds: float = 120.0
    tries: int = 3
    key_from: str = KEY
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refusal(f"{self.address!r} is no address; give one such as http://127.0.0.1:8080/v1")
        if parts.username or parts.password or parts.query:
            raise Refusal(f"the address of {parts.hostname} holds a key or a query; put the key into {self.key_from}")
        if parts.scheme == "http" and self._key() and not is_here(parts.hostname):
            raise Refusal(
                f"the key in {self.key_from} would travel to {parts.hostname} in the clear; give an https address, "
                f"or unset {self.key_from}"
            )

    @property
    def name(self) -> str:
        return f"{self.model} at {urlsplit(self.address).netloc}"

    def _key(self) -> str:
        return os.environ.get(self.key_from, "")

    def say(self, prompt: Prompt) -> Answer:
        said = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
        asked = {"model": self.model, "messages": said, "max_tokens": prompt.most, "temperature": prompt.temperature}
        reply = self.post("chat/completions", asked)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise NoAnswer(f"{self.address} answered without a message ({quoted(json.dumps(reply))}); {ELSEWHERE}")
        return Answer(text, *counted(reply, prompt, text))

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts d"]:
        """One vector for each text."""
        reply = self.post("embeddings", {"model": self.model, "input": list(texts)})
        try:
            rows = sorted(reply["data"], key=lambda row: row["index"])
            found = np.array([row["embedding"] for row in rows], np.float64)
        except (KeyError, TypeError, ValueError):
            found = np.empty((0, 0))
        if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
            raise NoAnswer(f"{self.address} gave no {len(texts)} vectors for {len(texts)} texts; {ELSEWHERE}")
        return found

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        """The reply as JSON. Raises NoAnswer, with what went wrong at the last try."""
        for attempt in range(self.tries):
            try:
                return self._once(path, body)
            except Again as busy:
                if attempt == self.tries - 1:
                    times = f", {self.tries} times" if self.tries > 1 else ""
                    raise NoAnswer(f"{busy}{times}; {ELSEWHERE}") from None
                self.wait(min(LONGEST_WAIT, busy.after or 2.0**attempt))
        raise AssertionError(self.tries)

    def _once(self, path: str, body: Mapping[str, object]) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "microtome"}
        headers |= {"Authorization": f"Bearer {self._key()}"} if self._key() else {}
        request = Request(f"{self.address.rstrip('/')}/{path}", json.dumps(body).encode(), headers, method="POST")
        try:
            with build_opener(ProxyHandler({}), Stay).open(request, timeout=self.seconds) as reply:
                raw = reply.read(MOST_BYTES)
        except HTTPError as error:
            raise self._turned_away(error) from None
        except TimeoutError:
            raise Again(f"{self.address} did not answer within {self.seconds:g} s") from None
        except (URLError, HTTPException, OSError) as error:
            raise self._unreached(error) from None
        try:
            return json.loads(raw)
        except ValueError:
            said = quoted(raw.decode(errors="replace"))
            raise NoAnswer(f"{self.address} answered {said}, which is no JSON; {ELSEWHERE}") from None

    def _turned_away(self, error: HTTPError) -> Exception:
        said = quoted(error.read(2000).decode(errors="replace"))
        if error.code in (401, 403):
            return NoAnswer(f"{self.address} refused the key (HTTP {error.code}); put a valid one into {self.key_from}")
        if error.code in BUSY:
            return Again(f"{self.address} answered HTTP {error.code} ({said})", seconds_of(error.headers))
        return NoAnswer(f"{self.address} answered HTTP {error.code} ({said}); {ELSEWHERE}")

    def _unreached(self, error: Exception) -> Exception:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return Again(f"{self.address} did not answer within {self.seconds:g} s")
        return Again(f"nobody answers at {self.address} ({reason})")


ELSEWHERE = "look at the server, or give another address or model"


class Again(Exception):
    """A failure that may pass; `after` is how many seconds the server asked to be left alone, 0 where it did not."""

    def __init__(self, words: str, after: float = 0.0):
        super().__init__(words)
        self.after = after


def seconds_of(headers: Message) -> float:
    """How long a server asks to be left alone; 0 where it does not say so in seconds."""
    try:
        return max(0.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def counted(reply: Mapping[str, Any], prompt: Prompt, text: str) -> tuple[int, int]:
    """Tokens read and written as the server counts them, or upper estimates where it does not."""
    usage = reply.get("usage")
    used = usage if isinstance(usage, dict) else {}
    found = (used.get("prompt_tokens"), used.get("completion_tokens"))
    guess = (prompt.tokens, min(prompt.most, estimated(text)))
    read, written = (n if isinstance(n, int) and n >= 0 else g for n, g in zip(found, guess, strict=True))
    return read, written


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
