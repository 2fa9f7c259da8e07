"""What a server's refusal means: status, headers and body of an error answer become one of `errors`.

Servers agree on the status codes at best. The texts recognised here are those of OpenAI, vLLM, llama.cpp,
llama-cpp-python, SGLang, Ollama, LM Studio, OpenRouter, TGI, Mistral, Gemini, Anthropic and Groq. A server is not
trusted: what it says is shortened, put on one line and scrubbed before it is part of a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from lcdoc.agents.models.error_bodies import ServerMessage, clean, read_error, read_event
from lcdoc.agents.models.errors import (
    AuthenticationError,
    ContextOverflowError,
    ModelError,
    QuotaError,
    RateLimitError,
    RefusedRequestError,
    ServerError,
    UnknownModelError,
    UnsupportedParameterError,
)
from lcdoc.agents.models.retry_after import stated_delay_s


class Refusal(Exception):  # noqa: N818 - not an error of ours: the answer of a server, on its way to be translated
    """An error answer: its HTTP status, headers (lower-case names) and body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        self.body = body


_OVERFLOW_CODES: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_OVERFLOW: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # OpenAI, vLLM, llama-cpp-python, SGLang, OpenRouter; the number is the window.
        r"maximum context (?:length|window|size)(?: of| is)? (?:only )?(\d[\d,]*)",
        r"context length (?:is|of) only (\d[\d,]*)",
        r"(?:longer than|exceeds?) the (?:model's )?(?:maximum |available |max )?(?:context|model|allowed)"
        r" (?:length|size|window)(?: of|:)? ?\(?(\d[\d,]*)?",
        r"exceed context (?:window|limit)(?: of|: [\d, +]+>) ?(\d[\d,]*)",
        r"n_ctx[:= (]+(\d+)",
        r"input tokens exceed the configured limit of (\d[\d,]*)",
        r"(\d[\d,]*) maximum context length",
        r"prompt is too long: [\d,]+ tokens > (\d[\d,]*)",
        r"input token count[^.]{0,40} exceeds the maximum number of tokens allowed \(?(\d[\d,]*)",
        r"`inputs` tokens \+ `max_new_tokens` must be <= (\d[\d,]*)",
        r"prompt (?:is )?too long[;,:] exceeded (?:max )?context length()",
        r"exceeds? (?:the )?(?:available |maximum |max )?context (?:length|size|window)()",
        r"maximum context length()",
    )
)


def _overflow(message: ServerMessage) -> tuple[bool, int | None]:
    """Whether the prompt is too long for the window, and the window where it is stated."""
    window = message.numbers.get("n_ctx")
    for pattern in _OVERFLOW:
        if found := pattern.search(message.text):
            stated = found[1]
            return True, window or (int(stated.replace(",", "")) if stated else None)
    return bool(message.codes & _OVERFLOW_CODES), window


OPTIONAL_FIELDS: Final = (
    "stream_options",
    "logprobs",
    "seed",
    "temperature",
    "top_p",
    "stop",
    "max_tokens",
    "max_completion_tokens",
)
"""Fields that a request can be sent without, or under another name, when a server refuses them."""
_REFUSING: Final = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|unavailable|extra_forbidden|extra (?:inputs?|fields?)"
    r"|(?:not|n't|no longer) (?:be )?(?:support(?:ed)?|permitted|allowed|recogni[sz]ed|available|implemented|enabled)"
    r"|cannot find field|no such|deprecated|only the default|must be 1\b",
    re.IGNORECASE,
)
_INVALID: Final = re.compile(
    r"validation error|literal_error|input should be|invalid|must be|has to be|type_error|value_error", re.IGNORECASE
)
_UNSUPPORTED_CODES: Final = frozenset(
    {"unsupported_parameter", "unknown_parameter", "unsupported_value", "extra_forbidden", "unrecognized_parameter"}
)
_FORMAT: Final = re.compile(
    r"response[_ ]format|json[_ ]schema|json[_ ]object|json mode|structured output|guided|grammar|xgrammar", re.I
)


def refused_field(refusal: Refusal, sent: Mapping[str, Any]) -> str | None:  # noqa: PLR0911
    """Which of the fields `sent` the server refuses to know, if that is what the refusal is about.

    One of OPTIONAL_FIELDS or `response_format`. None for refusals of a field's value (`max_tokens` too large) and for
    all that are about something else.
    """
    message = read_error(refusal.body)
    if refusal.status not in {400, 404, 422, 501}:
        return "response_format" if "response_format" in sent and _faults_format(refusal.status, message) else None
    if _overflow(message)[0]:
        return None
    candidates = [name for name in OPTIONAL_FIELDS if name in sent]
    refusing = bool(_REFUSING.search(message.text) or message.codes & _UNSUPPORTED_CODES)
    for parameter in message.parameters:
        root = re.split(r"[.\[]", parameter, maxsplit=1)[0]
        if root == "response_format" and "response_format" in sent:
            return root
        if refusing:
            root = "logprobs" if root == "top_logprobs" else root
            return root if root in candidates else None
    if refusing:
        for sentence in re.split(r"(?<=[.;!?])\s", message.text[:600]):
            named = [
                (found.start(), name)
                for name in candidates
                if (found := re.search(rf"(?<![\w.-]){name}(?![\w-])", sentence))
            ]
            if named and (_REFUSING.search(sentence) or message.codes & _UNSUPPORTED_CODES):
                return min(named)[1]
    if "response_format" in sent and _FORMAT.search(message.text):
        return "response_format"
    return None


def _faults_format(status: int, message: ServerMessage) -> bool:
    """Whether a server that fails where it ought to refuse says that `response_format` is at fault."""
    if status < 400 or status in {401, 402, 403, 408, 429, 502, 503, 504} or _overflow(message)[0]:
        return False
    return any("response_format" in parameter for parameter in message.parameters) or bool(
        re.search(r"response[_ ]format", message.text, re.IGNORECASE)
        and (_REFUSING.search(message.text) or _INVALID.search(message.text))
    )


_NO_CREDIT_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_NO_CREDIT: Final = re.compile(
    r"insufficient[_ ](?:quota|credits?|balance|funds)|out of credits|requires more credits|billing (?:hard )?limit"
    r"|credit balance is too low|account is not active",
    re.IGNORECASE,
)
_NO_MODEL: Final = re.compile(
    r"model[_ ]not[_ ]found|not a valid model|invalid model(?: name|$)|unknown model"
    r"|model .{0,120}(?:does not exist|not found)",
    re.IGNORECASE,
)
_TOO_LARGE_FOR_EVER: Final = re.compile(r"request too large|tokens must be reduced in order to run", re.IGNORECASE)
_STATUS_BY_NAME: Final = (
    ("insufficient_quota", 429),
    ("rate_limit", 429),
    ("too_many_requests", 429),
    ("overloaded", 503),
    ("authentication", 401),
    ("permission", 403),
    ("not_found", 404),
    ("context", 400),
    ("invalid_request", 400),
    ("badrequest", 400),
    ("bad_request", 400),
)


def stream_refusal(event: Mapping[str, Any]) -> Refusal:
    """An error that came as an event of a stream which had begun with 200, with the status that it stands for."""
    message = read_event(event)
    for code in message.codes:
        if code.isdigit() and 400 <= int(code) <= 599:
            return Refusal(int(code), {}, json.dumps(event))
    names = " ".join(message.codes)
    status = next((status for name, status in _STATUS_BY_NAME if name in names), 500)
    return Refusal(status, {}, json.dumps(event))


def translated(refusal: Refusal, *, model: str, url: str, key_hint: str, sent: Mapping[str, Any]) -> ModelError:  # noqa: PLR0911
    """The error that a refusal is. `key_hint` says where the key comes from or is to be put, for 401."""
    status = refusal.status
    message = read_error(refusal.body)
    said = clean(message.text)
    problem = f"{status}: {said}" if said else f"the server answered {status} and nothing else"
    overflowed, window = _overflow(message)
    if overflowed and status in {400, 413, 422, 500, 502}:
        return ContextOverflowError(
            model,
            problem,
            "prompt and answer do not fit its window: send shorter pieces, or set context_window to what it has",
            context_window=window,
        )
    if status == 402 or (status in {403, 429} and _is_out_of_credit(message)):
        return QuotaError(model, problem, "the account has no credit left: waiting does not help, topping it up does")
    if status in {413, 429} and _TOO_LARGE_FOR_EVER.search(message.text):
        return RefusedRequestError(
            model, problem, "one request is more than its limit for a minute: send shorter pieces"
        )
    if status == 429:
        delay = message.retry_delay_s or stated_delay_s(refusal.headers, message.text)
        return RateLimitError(model, problem, "fewer requests at once may do", retry_after_s=delay)
    if status in {401, 403}:
        if status == 403 and re.search(r"moderation|flagged", message.text, re.IGNORECASE):
            return RefusedRequestError(model, problem, "its moderation does not admit this text")
        return AuthenticationError(model, problem, key_hint)
    if status == 404 or (
        status in {400, 422} and (_NO_MODEL.search(message.text) or "model_not_found" in message.codes)
    ):
        return UnknownModelError(model, problem, f"is there an API at {url}? the address usually ends in /v1")
    if status == 405:
        return UnknownModelError(model, problem, f"{url} is not the address of an API: it usually ends in /v1")
    if 300 <= status < 400:
        target = clean(refusal.headers.get("location", "another address"))
        return UnknownModelError(
            model, f"{status}: the server sends requests on to {target}", "use that address itself"
        )
    if (status in {408, 409, 425} or status >= 500) and refused_field(refusal, sent) is None:
        delay = message.retry_delay_s or stated_delay_s(refusal.headers, "")
        return ServerError(model, problem, retry_after_s=delay)
    if (parameter := refused_field(refusal, sent)) is not None:
        return UnsupportedParameterError(
            model, problem, f"the server does not take {parameter} so", parameter=parameter
        )
    return RefusedRequestError(model, problem)


def _is_out_of_credit(message: ServerMessage) -> bool:
    # Gemini says "quota" of its limits for a minute too, but then with a delay.
    if message.retry_delay_s is not None:
        return False
    if message.codes & _NO_CREDIT_CODES or _NO_CREDIT.search(message.text):
        return True
    return "resource_exhausted" not in message.codes and "exceeded your current quota" in message.text.lower()
