"""Who may ask the server anything: pages that it served itself, on this machine, to someone who knows its address."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Names of this machine; with another port, too, for those who forward one to it."""
TOKEN_BYTES = 24
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing from elsewhere is loaded, nothing is told or shown elsewhere, nothing stays in caches."""


class Guard:
    """Lets requests through whose Host is this machine, by any of its names, and whose path begins with the token.

    The first keeps out foreign names that are pointed at 127.0.0.1 (DNS rebinding), the second everyone who has not
    been given the address: pages of other servers, other users, other programs. `door` is a path that leads there
    once: what starts a browser is seen by every user of the machine, and by then it is worth nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.token, self.door = secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass on what follows the token."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._own_answer(scope)
        if answer is not None:
            await answer(scope, receive, send_guarded)
            return
        await self.app({**scope, "root_path": f"/{self.token}"}, receive, send_guarded)

    def _own_answer(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if len(headers.getlist("host")) != 1 or _name(headers["host"]) not in HOSTS:
            return _refusal("This server answers to 127.0.0.1 alone")
        if _name(headers.get("origin", "//127.0.0.1").partition("//")[2]) not in HOSTS:
            return _refusal("Pages of other servers may ask nothing here")
        given = scope["path"].split("/")[1]
        if _same(given, self.token):
            return None
        if self.door and _same(given, self.door):
            self.door = ""
            return RedirectResponse(f"/{self.token}/", status_code=303)
        return _refusal("The address lacks its secret part")


def _refusal(reason: str) -> Response:
    return PlainTextResponse(f"{reason}; open the address that dreamsr serve shows.\n", status_code=403)


def _same(given: str, secret: str) -> bool:
    """Compared in a time that tells nothing."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _name(host: str) -> str:
    """A Host without its port."""
    name, _, port = host.partition(":")
    return name.lower() if not port or port.isdecimal() else ""
