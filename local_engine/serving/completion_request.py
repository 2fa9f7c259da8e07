"""The body of `/v1/completions`, read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcdoc.local_engine.admission import Prompt
from lcdoc.local_engine.serving.asked import (
    MOST_CHOICES,
    Asked,
    Served,
    check_model,
    read_choices,
    read_limit,
    read_sampling,
    read_streaming,
)
from lcdoc.local_engine.serving.constraint_fields import read_constraint
from lcdoc.local_engine.serving.fields import Fields

_DEFAULT_TOKENS = 16
"""OpenAI's, for this older API only."""


def read_completion(body: Mapping[str, Any], served: Served) -> Asked:
    """What a completion asks for. Raises Problem naming the first field that is wrong; unknown ones are passed over."""
    fields = Fields(body)
    check_model(fields, served)
    prompts = _prompts(fields)
    sampling = read_sampling(fields, served.defaults, fields.integer("logprobs"))
    for name in ("echo", "suffix"):
        if fields.values.get(name):
            raise fields.unsupported(name)
    n = read_choices(fields, len(prompts))
    if fields.integer("best_of") not in (None, n):
        raise fields.unsupported("best_of", "give `n`")
    stream, include_usage = read_streaming(fields)
    return Asked(
        field="prompt",
        prompts=prompts,
        sampling=sampling,
        max_tokens=read_limit(fields, "max_tokens"),
        default_tokens=_DEFAULT_TOKENS,
        n=n,
        stream=stream,
        include_usage=include_usage,
        constraint=read_constraint(fields),
    )


def _prompts(fields: Fields) -> tuple[Prompt, ...]:
    """A text, token ids, or an array of either."""
    given = fields.values.get("prompt")
    if given is None:
        raise fields.missing("prompt", "a string, an array of token ids, or an array of these")
    several = isinstance(given, list) and all(isinstance(each, str | list) for each in given)
    prompts = list(given) if several else [given]
    if not 1 <= len(prompts) <= MOST_CHOICES or not all(map(_is_prompt, prompts)):
        raise fields.wrong(
            "prompt",
            f"a string or an array of token ids, none of them empty, or an array of up to {MOST_CHOICES} of these",
        )
    return tuple(prompts)


def _is_prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)
