"""The most that a request can take: what is held back for it before it is sent."""

from __future__ import annotations

import json
from typing import Any

from lcdoc.agents.models.model import ChatModel, ModelSpec, Request, count_prompt
from lcdoc.agents.models.wire import FormattedRequest

_LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
_COUNT_FIELDS = ("n", "best_of")


def prompt_tokens(model: ChatModel, request: Request) -> int:
    """Tokens of the prompt as it is sent: with the format of the answer and the fields that the configuration adds,
    any of which servers may put before the model too."""
    beside = beside_the_messages(model.spec, request)
    return count_prompt(model, request) + (model.count_tokens(beside) if beside else 0)


def beside_the_messages(spec: ModelSpec, request: Request) -> str:
    """The text of what is sent beside the messages; empty where it is nothing but settings of ours."""
    if spec.identity:
        # The engine inside lcdoc is held to a schema without showing it to the model.
        return ""
    added = _extra_body(spec)
    form = added.pop("response_format", None)
    if form is None and isinstance(request, FormattedRequest):
        form = request.response_format
    parts = [] if form is None else [str(form)]
    if added:
        parts.append(json.dumps(added, ensure_ascii=False, default=str))
    return "\n".join(parts)


def longest_answer(spec: ModelSpec, request: Request) -> int:
    """Tokens of the longest answer the server can give to `request`; of all of them, where it is to give several."""
    added = _extra_body(spec)
    limits = [value for name in _LENGTH_FIELDS if (value := _count(added.get(name)))]
    field = "max_tokens" if spec.server is None else spec.server.max_tokens_field
    if _count(added.get(field)) is None:
        limits.append(request.max_tokens)
    longest = max(limits)
    if spec.max_output_tokens is not None:
        longest = min(longest, spec.max_output_tokens)
    return longest * max([1, *(value for name in _COUNT_FIELDS if (value := _count(added.get(name))))])


def _extra_body(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.server is None else dict(spec.server.extra_body)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
