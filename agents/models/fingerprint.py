"""What a request to a model is known by: a hash over everything that can change the answer, and nothing else.

Not in it: what the user calls the model, keys and the like, how the answer is asked for and passed on, prices, limits.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from lcdoc.agents.models.model import ModelSpec, Request

_FORM = "lcdoc-call/1"
"""To be changed with what is hashed, so that no call is known by a fingerprint of another kind."""
_SILENT_HEADERS = frozenset(
    {"http-referer", "openai-organization", "openai-project", "referer", "user-agent", "x-title"}
)
"""Headers that say who asks, not what."""
_SECRET_HEADER_PARTS = ("auth", "cookie", "key", "secret", "token")

_schemas: WeakKeyDictionary[type[BaseModel], str] = WeakKeyDictionary()


def fingerprint(spec: ModelSpec, request: Request) -> str:
    """The key of a request in the call store: 40 hexadecimal digits. Equal for requests that ask the same."""
    asked = (
        _FORM,
        _server(spec),
        [(message.role, message.content) for message in request.messages],
        None if request.schema is None else _schema(request.schema),
        request.max_tokens,
        float(request.temperature),
        None if request.top_p is None else float(request.top_p),
        request.seed,
        request.stop,
        request.logprobs,
        request.prompt,
        *((request.kv,) if request.kv else ()),
    )
    # JSON keeps the parts apart whatever they hold; as ASCII, it takes any text, half surrogate pairs included.
    return blake2b(json.dumps(asked, separators=(",", ":")).encode(), digest_size=20).hexdigest()


def public_url(base_url: str) -> str:
    """An address without user, password and query, which may be keys."""
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _server(spec: ModelSpec) -> Any:
    server = spec.server
    if server is None:
        return spec.identity or spec.name
    headers = sorted(
        (name.lower(), value)
        for name, value in server.headers
        if name.lower() not in _SILENT_HEADERS and not any(part in name.lower() for part in _SECRET_HEADER_PARTS)
    )
    extra_body = sorted(server.extra_body, key=lambda pair: pair[0])
    return [public_url(server.base_url), server.model, server.sends_temperature, headers, extra_body]


def _schema(schema: type[BaseModel]) -> str:
    """A schema's JSON schema. Fields stay in their order, which is the order a model writes them in."""
    if (known := _schemas.get(schema)) is None:
        known = _schemas[schema] = json.dumps(schema.model_json_schema(), separators=(",", ":"))
    return known
