"""A language model that is none, on loopback: answers as it is told to, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, bytes, dict[str, str]]


@dataclass
class Fake:
    """`say` makes a reply of the text of each question; `asked` holds what came: path, headers, body."""

    say: Callable[[str], Reply]
    asked: list[tuple[str, dict[str, str], dict]] = field(default_factory=list)
    address: str = ""


def message(text: str, usage: dict | None = None) -> Reply:
    """A reply as it should be."""
    said = {
        "choices": [{"message": {"content": text}}],
        "usage": usage or {"prompt_tokens": 10, "completion_tokens": 2},
    }
    return 200, json.dumps(said).encode(), {}


@contextmanager
def serving(say: Callable[[str], Reply]) -> Iterator[Fake]:
    fake = Fake(say)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.asked.append((self.path, dict(self.headers), body))
            asked = body["messages"][-1]["content"] if "messages" in body else json.dumps(body.get("input"))
            status, raw, headers = fake.say(asked)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:  # whoever asked has gone
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    fake.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
