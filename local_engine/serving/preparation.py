"""From what is asked to what the engine is given: token ids, a place in the window, a grammar that compiles.

All of it may take seconds for a long prompt or a large schema, so it is done in a thread, and before anything is
answered: what cannot be done is refused with a status of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lcdoc.local_engine.admission import Prompt
from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.sampling import Sampling
from lcdoc.local_engine.serving.asked import Asked
from lcdoc.local_engine.serving.constraint_fields import Constraint
from lcdoc.local_engine.serving.problems import Problem


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to be written."""

    index: int
    prompt: Sequence[int]
    sampling: Sampling
    first: int
    """The choice that has the same prompt and comes first: it may be this one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that the engine can take."""

    choices: tuple[Choice, ...]
    constraint: Constraint


def prepare(engine: Engine, asked: Asked) -> Prepared:
    """Make a request ready. Raises Problem for one that cannot be answered. Blocks."""
    choices: list[Choice] = []
    for prompt in asked.prompts:
        ids = _ids(engine, prompt, asked)
        sampling = _in_window(engine, len(ids), asked)
        first = len(choices)
        for number in range(asked.n):
            choices.append(Choice(first + number, ids, _seeded(sampling, number), first))
    constraint = asked.constraint
    try:
        for most in {choice.sampling.max_tokens for choice in choices}:
            engine.grammar(constraint.schema, constraint.regex, max_tokens=most)
    except InvalidRequestError as error:
        field = constraint.field or "response_format"
        raise Problem(f"Invalid value for '{field}': {error}.", param=field, code="invalid_value") from None
    return Prepared(tuple(choices), constraint)


def _ids(engine: Engine, prompt: Prompt, asked: Asked) -> Sequence[int]:
    known = engine.config.vocab_size
    if not isinstance(prompt, str) and any(isinstance(each, int) and not 0 <= each < known for each in prompt):
        raise Problem(
            f"Invalid value for '{asked.field}': token ids are from 0 to {known - 1}.",
            param=asked.field,
            code="invalid_value",
        )
    try:
        if not asked.tools:
            return engine.encode(prompt, **asked.variables)
        with_tools = engine.encode(prompt, **asked.variables, tools=list(asked.tools))
        if with_tools == engine.encode(prompt, **asked.variables):
            raise Problem(
                f"Unsupported parameter: 'tools' is not supported by {engine.name}, whose template passes over it.",
                param="tools",
                code="unsupported_parameter",
            )
        return with_tools
    except InvalidRequestError as error:
        raise Problem(f"Invalid value for '{asked.field}': {error}.", param=asked.field, code="invalid_value") from None


def _seeded(sampling: Sampling, number: int) -> Sampling:
    """For one of several answers: with one seed they would all be the same."""
    if sampling.seed is None or not number:
        return sampling
    return replace(sampling, seed=(sampling.seed + number) % (1 << 64))


def _in_window(engine: Engine, prompt: int, asked: Asked) -> Sampling:
    """The sampling with what may be answered: what is asked for, or else what is left of the window."""
    window, where, most = engine.context_window, asked.field, asked.max_tokens
    if prompt >= window:
        said = f"However, your {where} resulted in {prompt} tokens. Please reduce the length of the {where}."
    elif most is not None and prompt + most > window:
        said = (
            f"However, you requested {prompt + most} tokens ({prompt} in the {where}, {most} in the completion). "
            f"Please reduce the length of the {where} or completion."
        )
    else:
        left = window - prompt
        return replace(asked.sampling, max_tokens=most or min(left, asked.default_tokens or left))
    raise Problem(
        f"This model's maximum context length is {window} tokens. {said}", param=where, code="context_length_exceeded"
    )
