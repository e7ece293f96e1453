"""Who may speak to the server: the holder of the token, from this very page, under this machine's own name.

A page on 127.0.0.1 is within reach of every other web site its reader has open. So the guard denies by default and
reads only what cannot be forged by a page: the raw path and the headers (never a URL rebuilt from the Host header,
CVE-2026-48710). In order: the Host must be this machine (DNS rebinding), the request must come from this origin, the
path must stay inside, and the token must be there, as a cookie or as `Authorization: Bearer`.
"""

import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LONGEST_BODY = 256 * 1024
METHODS = ("GET", "HEAD", "POST")

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

NOT_THIS_HOST = (400, "This server answers only under its own address, 127.0.0.1 or localhost.")
FROM_ELSEWHERE = (403, "This request came from another site. Paste the address into the browser's address bar instead.")
NOT_HERE = (404, "There is nothing at this address.")
NO_TOKEN = (401, "This address needs the token that Microtome printed when it started. Open the printed address again.")
NOT_A_METHOD = (405, "Only GET, HEAD and POST are answered here.")
TOO_LONG = (413, f"The request is longer than {LONGEST_BODY:,} bytes. Send a shorter text.")
NO_LENGTH = (411, "A POST needs a Content-Length.")


class Guard:
    """Wraps an app, so that it sees only admitted requests, and its answers carry the security headers.

    `hosts` are the names (without port) under which it may be addressed.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...] = LOOPBACK) -> None:
        if len(token) < 16:
            raise ValueError(f"a token of {len(token)} characters can be guessed; use at least 16")
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self.admit(scope, receive, protected(send))

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self.refusal(scope):
            await reply(send, *refusal)
        elif self.token_in_query(scope):
            await reply(send, 303, "", {"Location": clean_address(scope), "Set-Cookie": self.cookie(scope)})
        elif not self.holds_token(scope):
            await reply(send, *NO_TOKEN)
        else:
            await self.app(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Why this request is refused whoever sent it, or None."""
        headers = headers_of(scope)
        if not self.is_this_host(headers.get("host", "")):
            return NOT_THIS_HOST
        if is_from_elsewhere(scope["method"], headers):
            return FROM_ELSEWHERE
        if scope["method"] not in METHODS:
            return NOT_A_METHOD
        if leaves_the_folder(scope):
            return NOT_HERE if self.holds_token(scope) else NO_TOKEN
        return body_refusal(headers) if scope["method"] == "POST" else None

    def is_this_host(self, host: str) -> bool:
        """Whether a request was made to a name that this server answers to."""
        name = re.fullmatch(r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", host)
        return name is not None and name[1].lower() in self.hosts

    def token_in_query(self, scope: Scope) -> bool:
        """Whether the address itself holds the token, as on the first visit."""
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        return scope["method"] == "GET" and self.is_token(given)

    def holds_token(self, scope: Scope) -> bool:
        """Whether a header or the cookie holds the token."""
        headers = headers_of(scope)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else cookie_of(scope, headers)
        return self.is_token(given)

    def is_token(self, given: str) -> bool:
        """Whether this is the token; it takes as long for any other."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def cookie(self, scope: Scope) -> str:
        """The token as a cookie that no script reads and no other site sends."""
        return f"{cookie_name(scope)}={self.token}; Path=/; HttpOnly; SameSite=Strict"


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The headers by lower-case name. One sent twice is joined with a comma, and so matches nothing it should not."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


def is_from_elsewhere(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another origin made this request. Another port of this machine is another origin."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return True
    if site == "same-site":  # a link from a notebook on another port may be followed; nothing else
        return not (method == "GET" and headers.get("sec-fetch-dest") == "document")
    return site not in ("same-origin", "none")


def leaves_the_folder(scope: Scope) -> bool:
    """Whether the path tries to climb out, plainly, encoded once or encoded twice."""
    raw = scope.get("raw_path", b"").decode("latin-1").lower()
    path = scope["path"]
    return ".." in path or "\\" in path or "\0" in path or any(code in raw for code in ("%2e", "%2f", "%5c", "%25"))


def body_refusal(headers: Mapping[str, str]) -> tuple[int, str] | None:
    """The status and sentence for a body of no stated length, or one that is too long; None for any other."""
    length = headers.get("content-length", "")
    if not length.isdigit():
        return NO_LENGTH
    return TOO_LONG if int(length) > LONGEST_BODY else None


def cookie_name(scope: Scope) -> str:
    """Cookies ignore ports, so that two servers on one machine need two names."""
    return f"microtome-{scope['server'][1]}"


def cookie_of(scope: Scope, headers: Mapping[str, str]) -> str:
    """Our cookie, read leniently: an odd cookie of another program on this machine must not hide it."""
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == cookie_name(scope)), "")


def clean_address(scope: Scope) -> str:
    """The same page without its token; always on this server, for the path begins with exactly one slash."""
    rest = [(k, v) for k, v in parse_qsl(scope["query_string"].decode("latin-1")) if k != "token"]
    path = "/" + quote(scope["path"].lstrip("/"))
    return f"{path}?{urlencode(rest)}" if rest else path


def protected(send: Send) -> Send:
    """Send, with the security headers on every answer; an answer's own policy stands in place of the page's."""

    async def send_protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", []))
            given = {name for name, _ in own}
            extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*own, *(pair for pair in extra if pair[0] not in given)]}
        await send(message)

    return send_protected


async def reply(send: Send, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
    fields = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", **(headers or {})}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": sentence.encode()})
