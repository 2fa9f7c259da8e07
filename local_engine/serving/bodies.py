"""A request's body: bytes in, a JSON object out, and nothing beyond bounds on the way."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope

from lcdoc.local_engine.serving.problems import ClientGoneError, Problem

_DEEPEST = 64
_BODY_S = 60.0


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The body, read as it comes, of at most `most_bytes`. Raises Problem, and ClientGoneError."""
    headers = Headers(scope=scope)
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(
            f"The body is encoded with {encoding}: send it as it is.", status=415, code="unsupported_encoding"
        )
    stated = headers.get("content-length", "0")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            if not stated.isdigit() or int(stated) <= most_bytes:
                async for piece in Request(scope, receive).stream():
                    body += piece
                    if len(body) > most_bytes:
                        break
                else:
                    return bytes(body)
    except ClientDisconnect:
        raise ClientGoneError from None
    except TimeoutError:
        raise Problem(f"The body did not arrive within {_BODY_S:g} seconds.", status=408, code="body_timeout") from None
    raise Problem(
        f"The body is longer than {most_bytes:,} bytes, which is this server's limit: shorten the prompt.",
        status=413,
        code="request_too_large",
    )


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Problem for what is none, or is nested deeply, or holds no real text.

    Takes up to a second for the longest bodies: not to be called in the event loop.
    """
    try:
        value = json.loads(body, parse_constant=_no_number)
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:
        raise Problem("The body is not UTF-8.", code="invalid_json") from None
    except ValueError as error:
        raise Problem(f"The body is not JSON: {str(error)[:200]}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem("The body is no JSON object.", code="invalid_json")
    _check(value)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
                inner += each
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                _check_text(each)
            elif isinstance(each, float) and not math.isfinite(each):
                raise Problem("The body holds a number beyond float64.", code="invalid_json")
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Problem("A text holds half a character (a lone surrogate): remove it.", code="invalid_json") from None


def _too_deep() -> Problem:
    return Problem(f"The body is nested more than {_DEEPEST} levels deep.", code="invalid_json")
