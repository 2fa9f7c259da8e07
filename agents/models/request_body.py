"""The body of a request, in the fields that one server takes: what it refuses to know is left out from then on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.error_translation import Refusal, refused_field
from lcdoc.agents.models.model import ModelSpec, Request, Server
from lcdoc.agents.models.wire import FormattedRequest

_log = logging.getLogger(__name__)


class RequestBody:
    """Writes the requests to `server`, and learns from its refusals which fields it has."""

    def __init__(self, spec: ModelSpec, server: Server) -> None:
        self._spec = spec
        self._server = server
        self._max_tokens_field: str = server.max_tokens_field
        self._refused: set[str] = set() if server.sends_temperature else {"temperature"}

    def of(self, request: Request) -> dict[str, Any]:
        """The body of a streamed request, as the API has it."""
        most = self._spec.max_output_tokens
        optional: dict[str, Any] = {
            self._max_tokens_field: request.max_tokens if most is None else min(request.max_tokens, most),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "logprobs": True if request.logprobs else None,
            "stream_options": {"include_usage": True},
        }
        body: dict[str, Any] = {
            "model": self._server.model,
            "messages": [{"role": message.role, "content": _sendable(message.content)} for message in request.messages],
        }
        body.update((k, v) for k, v in optional.items() if v is not None and k not in self._refused)
        if isinstance(request, FormattedRequest) and request.response_format is not None:
            body["response_format"] = request.response_format
        body.update(self._server.extra_body)
        body["stream"] = True
        return body

    def of_probe(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`body` as a request for one token, unstreamed."""
        kept = {name: value for name, value in body.items() if name != "stream_options"}
        return {**kept, self._max_tokens_field: 1, "stream": False}

    def learn(self, refusal: Refusal, body: Mapping[str, Any]) -> bool:
        """Whether another request, without a field that this server does not know, may do."""
        field = refused_field(refusal, body)
        if field is None or field in {"response_format", "stop"} or field in dict(self._server.extra_body):
            return False
        said = clean(refusal.body, 120)
        if field in {"max_tokens", "max_completion_tokens"}:
            return self._rename_max_tokens(field, said)
        if field not in self._refused:
            self._refused.add(field)
            _log.warning("model %s: the server does not take %s: sent without (%s)", self._spec.name, field, said)
        return True

    def _rename_max_tokens(self, field: str, said: str) -> bool:
        other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
        if self._max_tokens_field == other:
            # A request sent at the same time has found out already.
            return True
        if other in self._refused:
            return False
        self._refused.add(field)
        self._max_tokens_field = other
        _log.warning("model %s: the server knows %s as %s (%s)", self._spec.name, field, other, said)
        return True


def _sendable(text: str) -> str:
    """`text` without single surrogates, which UTF-8 does not have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
