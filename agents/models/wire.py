"""A request as the client sends it: with the `response_format` that the structured layer chose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lcdoc.agents.models.model import Request


@dataclass(frozen=True, slots=True)
class FormattedRequest(Request):
    """A request that asks the server to hold to a format. The layers in between pass it on unchanged.

    A server that refuses the format raises UnsupportedParameterError with `parameter="response_format"`.
    """

    response_format: dict[str, Any] | None = None
    """As the API has it: `{"type": "json_schema", "json_schema": {...}}`, `{"type": "json_object"}`, None."""
