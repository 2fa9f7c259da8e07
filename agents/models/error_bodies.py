"""What the body of an error answer says, in whichever of the usual forms, and what of it is fit to be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from lcdoc.agents.models.secrets import scrub

MAX_MESSAGE_CHARACTERS: Final = 300
_KEPT_CHARACTERS: Final = 4_000
"""Of a body, for recognising it; what is shown is shorter."""


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """What an error body says, in whichever of the usual forms."""

    text: str
    """Everything it says in words; not cleaned."""
    codes: frozenset[str] = frozenset()
    """Its `code`, `type` and `status`, in lower case."""
    parameters: tuple[str, ...] = ()
    """The fields of the request that it names as the culprits."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    retry_delay_s: float | None = None


def clean(text: str, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """`text` fit to be shown: no keys, one line, nothing but printable characters, at most `limit` of them."""
    text = scrub(text[: 20 * limit])
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def read_error(body: str) -> ServerMessage:
    """Understand an error body: JSON of any of the usual shapes, a page of HTML, plain text."""
    body = body.strip()
    try:
        return read_event(json.loads(body))
    except (ValueError, RecursionError):
        pass
    if body.startswith("<"):
        title = re.search(r"(?is)<title[^>]*>(.*?)</title>", body[:_KEPT_CHARACTERS])
        body = title[1] if title else re.sub(r"(?s)<[^>]*>", " ", body[:_KEPT_CHARACTERS])
    return ServerMessage(body[:_KEPT_CHARACTERS])


def read_event(data: object) -> ServerMessage:
    """Understand an error that came as JSON, parsed."""
    texts: list[str] = []
    codes: set[str] = set()
    parameters: list[str] = []
    numbers: dict[str, int] = {}
    delays: list[float] = []
    for key, value in _leaves(data):
        if key in {"message", "msg", "error", "detail", "title", "raw", "error_description", "error_message"}:
            text = str(value)
            # Gateways hand on the body of the server behind them, as a string.
            if key in {"raw", "message"} and text.lstrip().startswith("{"):
                text = read_error(text).text
            if text not in texts:
                texts.append(text)
        elif key in {"code", "type", "status", "error_type"}:
            codes.add(str(value).lower())
        elif key == "param" and isinstance(value, str):
            parameters.append(value)
        elif key == "loc":
            parameters.append(str(value))
        elif key == "retryDelay" and (seconds := re.fullmatch(r"([\d.]+)s", str(value))):
            delays.append(float(seconds[1]))
        elif isinstance(value, int) and not isinstance(value, bool):
            numbers[key] = value
    return ServerMessage(
        ". ".join(texts)[:_KEPT_CHARACTERS], frozenset(codes), tuple(parameters), numbers, delays[0] if delays else None
    )


def _leaves(data: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Keys with their plain values, at any depth; `loc` of a validation error as one dotted path."""
    if depth > 8:
        return
    if isinstance(data, dict):
        for name, value in list(data.items())[:64]:
            if name == "loc" and isinstance(value, list):
                yield "loc", ".".join(str(part) for part in value if part != "body")
            elif name != "input":  # what was sent, handed back by validators
                yield from _leaves(value, str(name), depth + 1)
    elif isinstance(data, list):
        for value in data[:64]:
            yield from _leaves(value, key, depth + 1)
    elif data is not None:
        yield key, data
