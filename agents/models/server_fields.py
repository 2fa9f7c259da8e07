"""Fields of what servers say of themselves, read without trust: what cannot be right is taken for not said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from lcdoc.agents.models.model import Prices

_MIN_WINDOW: Final = 128
_MAX_WINDOW: Final = 100_000_000


def objects_in(value: object, name: str) -> list[dict[str, Any]]:
    """The objects of the list `name` of an object."""
    inner = value.get(name) if isinstance(value, dict) else None
    return [each for each in inner if isinstance(each, dict)] if isinstance(inner, list) else []


def object_in(value: object, name: str) -> dict[str, Any]:
    """The object `name` of an object; empty where it is none."""
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, dict) else {}


def model_name(entry: Mapping[str, Any]) -> str:
    """A model's name, empty where it is none: it is shown, and becomes part of requests."""
    name = entry.get("id")
    return name if isinstance(name, str) and 0 < len(name) <= 300 and name.isprintable() else ""


def is_same_model(listed: str, model: str) -> bool:
    """Whether two names mean one model; Ollama adds `:latest` to those without a tag."""
    return listed.removesuffix(":latest") == model.removesuffix(":latest")


def window_tokens(value: object) -> int | None:
    """A number of tokens that can be one."""
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and _MIN_WINDOW <= value <= _MAX_WINDOW
        else None
    )


def listed_prices(pricing: Mapping[str, Any]) -> Prices | None:
    """US dollars per token, as OpenRouter writes them: decimal numbers in strings."""
    per_million: dict[str, float] = {}
    for name in ("prompt", "completion", "input_cache_read", "input_cache_write", "request"):
        text = pricing.get(name)
        if isinstance(text, str) and re.fullmatch(r"\d{1,3}(?:\.\d{1,20})?(?:[eE]-\d{1,2})?", text):
            per_million[name] = round(float(text) * 1e6, 9)
        elif text is not None:
            return None
    # A price of each request cannot be expressed, so the whole is not known.
    if "prompt" not in per_million or "completion" not in per_million or per_million.get("request"):
        return None
    fresh = max(per_million["prompt"], per_million.get("input_cache_write", 0.0))
    return Prices(fresh, per_million["completion"], per_million.get("input_cache_read"))
