"""What both APIs ask for, once it is read from a body: prompts, sampling, a constraint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Literal

from lcdoc.local_engine.admission import Prompt
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.generation_config import GenerationDefaults
from lcdoc.local_engine.sampling import Sampling
from lcdoc.local_engine.serving.constraint_fields import Constraint
from lcdoc.local_engine.serving.fields import Fields
from lcdoc.local_engine.serving.problems import Problem, unknown_model

MOST_CHOICES = 32
_MOST_STOPS = 16
_LONGEST_STOP = 1_000


@dataclass(frozen=True, slots=True)
class Served:
    """The model as its clients are told of it."""

    name: str
    window: int
    """Tokens of prompt and answer together."""
    defaults: GenerationDefaults


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of either API."""

    field: Literal["messages", "prompt"]
    """Where the request has its prompts."""
    prompts: tuple[Prompt, ...]
    sampling: Sampling
    """Without `max_tokens`, which the window decides too."""
    max_tokens: int | None
    """What is asked for; None: `default_tokens`."""
    default_tokens: int | None
    """What is given at most where nothing is asked for; None: all that the window leaves."""
    n: int
    stream: bool
    include_usage: bool
    constraint: Constraint
    tools: tuple[Any, ...] = ()
    variables: Mapping[str, Any] = dataclass_field(default_factory=dict)
    """For the chat template."""


def check_model(fields: Fields, served: Served) -> None:
    """Raise Problem for a model that is not here. None named is the one there is."""
    name = fields.text("model")
    if name and name != served.name:
        raise unknown_model(name, served.name)


def read_sampling(fields: Fields, defaults: GenerationDefaults, logprobs: int | None) -> Sampling:
    """How tokens are drawn: as asked, else as the model's makers do it, else as OpenAI."""
    suggested: dict[str, Any] = {
        "temperature": 1.0 if defaults.temperature is None else defaults.temperature,
        "top_p": defaults.top_p,
        "top_k": defaults.top_k,
        "min_p": defaults.min_p,
        "repetition_penalty": defaults.repetition_penalty,
    }
    values = {name: value for name, value in suggested.items() if value is not None}
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        if (number := fields.number(name)) is not None:
            values[name] = number
    if (top_k := fields.integer("top_k")) is not None:
        # Where vLLM's clients switch it off they write -1.
        values["top_k"] = 0 if top_k == -1 else top_k
    _refuse_unserved(fields)
    return _sampling(
        {
            **values,
            "seed": fields.integer("seed"),
            "stop": _stops(fields),
            "ignore_eos": fields.flag("ignore_eos"),
            "logprobs": logprobs,
        },
        fields,
    )


def read_limit(fields: Fields, *names: str) -> int | None:
    """How many tokens to answer at most, from the first of the fields that is there."""
    for name in names:
        if (most := fields.integer(name)) is not None:
            if most < 1:
                raise fields.wrong(name, "1 or more")
            return most
    return None


def read_choices(fields: Fields, prompts: int = 1) -> int:
    """How many answers to each of so many prompts."""
    n = fields.integer("n")
    n = 1 if n is None else n
    if not 1 <= n <= MOST_CHOICES // max(1, prompts):
        of_all = f", {MOST_CHOICES} answers in all prompts together" if prompts > 1 else ""
        raise fields.wrong("n", f"from 1 to {MOST_CHOICES}{of_all}")
    return n


def read_streaming(fields: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether a stream is to end with its usage."""
    stream = fields.flag("stream")
    options = fields.fields("stream_options")
    if options is not None and not stream:
        raise fields.wrong("stream_options", "left out where `stream` is not true")
    return stream, options is not None and options.flag("include_usage")


def _sampling(values: Mapping[str, Any], fields: Fields) -> Sampling:
    try:
        return Sampling(**values)
    except InvalidRequestError as error:
        # Its messages begin with the name of the field.
        name = fields.path(str(error).split(" ", 1)[0])
        name = "top_logprobs" if name == "logprobs" and fields.has("top_logprobs") else name
        raise Problem(f"Invalid value for '{name}': {error}.", param=name, code="invalid_value") from None


def _stops(fields: Fields) -> tuple[str, ...]:
    stops = fields.values.get("stop")
    if stops is None:
        return ()
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise fields.wrong("stop", "a string, or an array of strings, none of them empty")
    if len(stops) > _MOST_STOPS or any(len(stop) > _LONGEST_STOP for stop in stops):
        raise fields.wrong("stop", f"of at most {_MOST_STOPS} strings of {_LONGEST_STOP:,} characters")
    return tuple(stops)


def _refuse_unserved(fields: Fields) -> None:
    """Fields that would change the answer, and cannot here: passing over them would be a wrong answer."""
    if fields.values.get("logit_bias"):
        raise fields.unsupported("logit_bias")
    for name in ("functions", "function_call", "audio", "prediction", "web_search_options"):
        if fields.values.get(name):
            raise fields.unsupported(name)
    if fields.values.get("modalities") not in (None, [], ["text"]):
        raise fields.unsupported("modalities", 'this model writes ["text"]')
