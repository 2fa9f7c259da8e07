# ruff: noqa: E501 - the texts are as servers send them
"""What refusals of real servers mean: their texts, their statuses, how long they ask to wait."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from lcdoc.agents.models.error_bodies import clean, read_error
from lcdoc.agents.models.error_translation import Refusal, refused_field, translated
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
from lcdoc.tests.agents.models.refusal_texts import (
    DEEPSEEK_LOGPROBS,
    GEMINI_SEED,
    GROQ_LOGPROBS,
    MISTRAL_STREAM_OPTIONS,
    OPENAI_MAX_TOKENS,
    OPENAI_TEMPERATURE,
)
from lcdoc.tests.servers.chat_server import error_body

SENT = {
    "max_tokens": 64,
    "temperature": 0.0,
    "stream_options": {},
    "seed": 1,
    "logprobs": True,
    "stop": [],
    "response_format": {},
}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (OPENAI_MAX_TOKENS, "max_tokens"),
        (OPENAI_TEMPERATURE, "temperature"),
        (MISTRAL_STREAM_OPTIONS, "stream_options"),
        (GEMINI_SEED, "seed"),
        (DEEPSEEK_LOGPROBS, "logprobs"),
        (GROQ_LOGPROBS, "logprobs"),
        ({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}, "seed"),
        (error_body("Unrecognized request argument supplied: stream_options"), "stream_options"),
        # About something else, though a field is named or something is not supported.
        (error_body("max_tokens is too large: 99999. This model supports at most 16384 completion tokens", param="max_tokens"), None),
        (error_body("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens and your request has 10 input tokens (8192 > 4096 - 10).", code=400), None),
        (error_body("Image input is not supported by this model", param="messages.[1].content"), None),
        (error_body("messages: roles must alternate; the temperature of the discussion is high"), None),
        (error_body("This model's maximum context length is 8192 tokens. Unsupported: max_tokens", code="context_length_exceeded"), None),
        ({"error": "seedling is not supported"}, None),
    ],
)  # fmt: skip
def test_which_field_a_refusal_is_about(body, field):
    sent = {name: value for name, value in SENT.items() if name != "response_format"}
    assert refused_field(Refusal(400, {}, json.dumps(body)), sent) == field


# What refusals mean


def meaning(status, body, headers=None) -> ModelError:
    text = body if isinstance(body, str) else json.dumps(body)
    return translated(
        Refusal(status, headers or {}, text), model="m", url="http://h/v1", key_hint="set A_KEY", sent={"max_tokens": 5}
    )


@pytest.mark.parametrize(
    ("status", "body", "window"),
    [
        # OpenAI
        (400, error_body("This model's maximum context length is 128000 tokens. However, your messages resulted in 202868 tokens (202767 in the messages, 101 in the functions). Please reduce the length of the messages or functions.", code="context_length_exceeded", param="messages"), 128_000),
        (400, error_body("Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,010 tokens.", code="context_length_exceeded"), 272_000),
        (400, error_body("Please reduce the length of the messages or completion.", code="context_length_exceeded"), None),
        # vLLM
        (400, {"object": "error", "message": "This model's maximum context length is 16384 tokens. However, you requested 19591 tokens (9591 in the messages, 10000 in the completion). Please reduce the length of the messages or completion. None", "type": "BadRequestError", "param": None, "code": 400}, 16_384),
        (400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens and your request has 10 input tokens (8192 > 4096 - 10).", "type": "BadRequestError", "code": 400}, 4_096),
        (400, {"error": {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller than the number of text tokens.", "type": "BadRequestError", "code": 400}}, 4_096),
        (400, {"error": {"message": "You passed 4097 input tokens and requested 1000 output tokens. However, the model's context length is only 4096 tokens, resulting in a maximum input length of 3096 tokens.", "code": 400}}, 4_096),
        # llama.cpp
        (400, {"error": {"code": 400, "message": "the request exceeds the available context size. try increasing the context size or enable context shift", "type": "exceed_context_size_error", "n_prompt_tokens": 14429, "n_ctx": 8192}}, 8_192),
        (500, {"error": {"code": 500, "message": "the request exceeds the available context size. try increasing the context size or enable context shift", "type": "exceed_context_size_error", "n_prompt_tokens": 1407, "n_ctx": 256}}, 256),
        (400, {"error": {"code": 400, "message": "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it", "type": "exceed_context_size_error"}}, 8_192),
        # llama-cpp-python
        (400, error_body("This model's maximum context length is 2048 tokens, however you requested 2285 tokens (2285 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.", code="context_length_exceeded", param="messages"), 2_048),
        (500, error_body("Requested tokens (2285) exceed context window of 2048", kind="internal_server_error"), 2_048),
        # SGLang
        (400, {"object": "error", "message": "The input (61709 tokens) is longer than the model's context length (40960 tokens).", "type": "BadRequestError", "param": None, "code": 400}, 40_960),
        (400, {"object": "error", "message": "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).", "code": 400}, 59_862),
        (400, {"object": "error", "message": "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of 40000 tokens: 30000 tokens from the input messages and 10000 tokens for the completion.", "code": 400}, 32_768),
        # LM Studio
        (400, {"error": "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded with context length of only 32768 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input."}, 32_768),
        (400, {"error": "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length, or provide a shorter input."}, 4_096),
        (400, {"error": "Cannot truncate prompt with n_keep (15028) >= n_ctx (7424)"}, 7_424),
        # OpenRouter, also with the provider's own words inside
        (400, {"error": {"message": "This endpoint's maximum context length is 131072 tokens. However, you requested about 138956 tokens (7884 of text input, 131072 in the output). Please reduce the length of either one, or use the \"middle-out\" transform to compress your prompt automatically.", "code": 400}}, 131_072),
        (502, {"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "X", "raw": '{"object": "error", "message": "This model\'s maximum context length is 16000 tokens. However, you requested 17165 tokens", "code": 400}'}}}, 16_000),
        # Ollama
        (400, error_body("input length exceeds the context length", kind="api_error"), None),
        (400, error_body("prompt too long; exceeded max context length by 1200 tokens"), None),
        # Anthropic, Gemini, Mistral, TGI
        (400, error_body("prompt is too long: 215000 tokens > 200000 maximum"), 200_000),
        (400, error_body("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length"), 200_000),
        (400, [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}], 1_048_576),
        (400, {"object": "error", "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length", "type": "invalid_request_error"}, 32_768),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 512 `max_new_tokens`", "error_type": "validation"}, 4_096),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_recognised_and_the_window_read(status, body, window):
    error = meaning(status, body)
    assert isinstance(error, ContextOverflowError)
    assert error.context_window == window


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, error_body("You exceeded your current quota, please check your plan and billing details.", kind="insufficient_quota", code="insufficient_quota"), QuotaError),
        (429, [{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details.", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "RetryInfo", "retryDelay": "34s"}]}}], RateLimitError),
        (402, {"error": {"message": "This request requires more credits, or fewer max_tokens.", "code": 402}}, QuotaError),
        (402, error_body("Insufficient Balance"), QuotaError),
        (429, error_body("Request too large for gpt-4 in organization x on tokens per min (TPM): Limit 10000, Requested 15000. The input or output tokens must be reduced in order to run successfully.", code="rate_limit_exceeded"), RefusedRequestError),
        (413, error_body("Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 10000", code="rate_limit_exceeded"), RefusedRequestError),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", RefusedRequestError),
        (429, "", RateLimitError),
        (401, {"detail": "Not authenticated"}, AuthenticationError),
        (403, error_body("Country not supported", code="unsupported_country"), AuthenticationError),
        (403, {"error": {"message": "Input was flagged", "code": 403, "metadata": {"reasons": ["x"]}}}, RefusedRequestError),
        (404, error_body('model "x" not found, try pulling it first', kind="api_error"), UnknownModelError),
        (400, {"error": {"message": "nope/x is not a valid model ID", "code": 400}}, UnknownModelError),
        (405, {"detail": "Method Not Allowed"}, UnknownModelError),
        (408, "", ServerError),
        (409, "", ServerError),
        (500, "<html><head><title>500</title></head><body>x</body></html>", ServerError),
        (503, error_body("Loading model", kind="unavailable_error", code=503), ServerError),
        (529, error_body("Overloaded", kind="overloaded_error"), ServerError),
        (400, error_body("messages: at least one message is required"), RefusedRequestError),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]}, RefusedRequestError),
        (418, "I'm a teapot", RefusedRequestError),
    ],
)  # fmt: skip
def test_what_a_status_means(status, body, kind):
    error = meaning(status, body)
    assert type(error) is kind
    assert str(error).startswith("model m: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "body",
    ["", "[" * 5_000, '{"error": ' * 50 + "1" + "}" * 50, "null", "[]", '{"error": null}', "\x00\x1b[2J\u202e", '"x"'],
)
def test_no_error_body_breaks_the_translation(body):
    for status in (400, 401, 404, 429, 500):
        message = str(meaning(status, body))
        assert message.isprintable()
        assert str(status) in message


def test_the_servers_words_are_shown_short_and_on_one_line():
    assert read_error('{"message": "a", "detail": "b"}').text == "a. b"
    said = clean("first\r\n\tsecond\x07 " + "x" * 1_000)
    assert said.startswith("first second x")
    assert len(said) == 300


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after": "7"}, "", 7),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": "9", "retry-after-ms": "1500"}, "", 1.5),
        ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-requests": "1h", "x-ratelimit-remaining-requests": "9"}, "", 360),
        ({"x-ratelimit-reset-requests": "1.5s"}, "", 1.5),
        ({"x-ratelimit-reset-requests": "120ms"}, "", 0.12),
        ({}, "Rate limit reached for gpt-4. Please try again in 1m2.5s. Visit", 62.5),
        ({}, "Please retry after 20s", 20),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({}, "", None),
    ],
)  # fmt: skip
def test_how_long_a_server_asks_to_wait(headers, text, seconds):
    stated = stated_delay_s(headers, text)
    assert stated == (None if seconds is None else pytest.approx(seconds))


def test_dates_are_waited_for():
    assert 50 < stated_delay_s({"retry-after": formatdate(time.time() + 60, usegmt=True)}, "") <= 61
    assert stated_delay_s({"retry-after": formatdate(time.time() - 60, usegmt=True)}, "") == 0
    assert 50 < stated_delay_s({"x-ratelimit-reset": str(int((time.time() + 60) * 1000))}, "") <= 61


LLAMA_CPP_PYTHON_FORMAT = {
    "error": {
        "message": "1 validation error: {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema', 'ctx': {'expected': \"'text' or 'json_object'\"}}",
        "type": "internal_server_error",
        "param": None,
        "code": None,
    }
}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, LLAMA_CPP_PYTHON_FORMAT, UnsupportedParameterError),
        (500, error_body("response_format is not supported"), UnsupportedParameterError),
        (501, error_body("response format of this type is not implemented"), UnsupportedParameterError),
        (406, error_body("invalid response_format"), UnsupportedParameterError),
        # The server has other troubles.
        (500, error_body("the engine died"), ServerError),
        (500, error_body("Failed to process the request with response_format json_schema"), ServerError),
        (500, error_body("1 validation error: {'loc': ('body', 'seed')}"), ServerError),
        (503, error_body("response_format is not supported by the one worker that is up"), ServerError),
        (429, error_body("response_format is not supported at this rate"), RateLimitError),
        (401, error_body("invalid key, response_format is not supported without"), AuthenticationError),
    ],
)
def test_a_response_format_at_fault_is_told_whatever_the_status(status, body, kind):
    error = translated(Refusal(status, {}, json.dumps(body)), model="m", url="http://h/v1", key_hint="", sent=SENT)
    assert type(error) is kind
    assert getattr(error, "parameter", "response_format") == "response_format"


def test_no_format_is_at_fault_that_was_not_sent():
    refusal = Refusal(500, {}, json.dumps(LLAMA_CPP_PYTHON_FORMAT))
    assert type(translated(refusal, model="m", url="http://h/v1", key_hint="", sent={})) is ServerError
