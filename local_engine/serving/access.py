"""Who may ask: holders of the key; without a key, programs on this machine that are not led by a web page."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lcdoc.local_engine.serving.problems import Problem
from lcdoc.local_engine.serving.settings import Settings, is_loopback

_OPEN = frozenset({"/health"})


class Access:
    """Lets requests through that may be answered, and refuses the others before their body is read."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._digest = None if settings.key is None else _digest(settings.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(scope["path"], Headers(scope=scope))):
            await problem.response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _problem(self, path: str, headers: Headers) -> Problem | None:
        if self._digest is None:
            return _foreign(headers)
        if path in _OPEN:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return _unauthorized("You did not provide an API key: send it as `Authorization: Bearer KEY`.")
        if not hmac.compare_digest(_digest(given.strip()), self._digest):
            return _unauthorized("Incorrect API key provided.")
        return None


def _digest(key: str) -> bytes:
    """Of one length, so that comparing tells nothing of the key's."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _unauthorized(message: str) -> Problem:
    return Problem(message, status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _foreign(headers: Headers) -> Problem | None:
    """Refuses what a web page elsewhere sends through a browser here, under its own name or under one it made up."""
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    origin = headers.get("origin")
    named = [host] if origin is None else [host, urlsplit(origin).hostname or ""]
    if all(is_loopback(name) for name in named):
        return None
    return Problem(
        "Without a key this server answers programs on its own machine only, at 127.0.0.1 or localhost: start it with "
        "a key for others.",
        status=403,
        code="forbidden_host",
    )
