"""What the server refuses, and that it says so in OpenAI's form, naming the field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcdoc.agents.models.error_translation import Refusal, translated
from lcdoc.agents.models.errors import ContextOverflowError, RefusedRequestError, UnsupportedParameterError
from lcdoc.tests.local_engine.served_engine import Served, served_engine

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(scope="module")
def served(checkpoint: Callable[..., Path]) -> Iterator[Served]:
    with served_engine(checkpoint("qwen2")) as running:
        yield running


@pytest.fixture(scope="module")
def connection(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The error that an answer is, after a look at its form."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("seed", "x"),
        ("seed", 1 << 70),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("n", 0),
        ("n", 1000),
        ("stop", [""]),
        ("stop", 5),
        ("stop", ["x"] * 17),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("logprobs", 1),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("messages", None),
        ("messages", []),
        ("messages", "Hello"),
        ("messages[0]", ["Hello"]),
        ("messages[0].role", [{"role": "narrator", "content": "x"}]),
        ("messages[0].content", [{"role": "user"}]),
        ("messages[0].content", [{"role": "user", "content": 5}]),
        ("messages[0].content[1]", [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]),
        ("messages[0].content[0].text", [{"role": "user", "content": [{"type": "text"}]}]),
        ("response_format", "json"),
        ("response_format.type", {"type": "xml"}),
        ("response_format.json_schema.schema", {"type": "json_schema"}),
        ("response_format.json_schema.schema", {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}}),
        ("response_format.json_schema.schema", {"type": "json_schema", "json_schema": {"schema": 5}}),
        ("response_format.schema", {"type": "json_object", "schema": {"$ref": "#/nowhere"}}),
        ("response_format.schema", {"type": "json_object", "schema": {"enum": ["x" * 300_000]}}),
        ("guided_regex", "(("),
        ("guided_regex", "a" * 20_000),
        ("guided_choice", ["a"]),
        ("guided_json", "{"),
        ("structured_outputs.grammar", {"grammar": "x"}),
        ("structured_outputs.regex", {"regex": "(?=x)"}),
        ("tools", {"type": "function"}),
        ("tools[0]", ["x"]),
        ("tool_choice", "required"),
        ("chat_template_kwargs.messages", {"messages": []}),
        ("model", 5),
    ],
)
def test_a_wrong_value_is_refused_by_name(connection: httpx.Client, field: str, value: Any) -> None:
    name = field.replace("[", ".").split(".", maxsplit=1)[0]
    error = refused(connection.post("/chat/completions", json={**HELLO, name: value}))
    assert error["param"] == field
    assert field in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", ""),
        ("prompt", []),
        ("prompt", [1, "a"]),
        ("prompt", [[1], []]),
        ("prompt", [True]),
        ("prompt", [5_000]),
        ("prompt", ["x"] * 33),
        ("logprobs", 21),
        ("echo", True),
        ("suffix", "x"),
        ("best_of", 3),
    ],
)
def test_a_wrong_value_of_a_completion_too(connection: httpx.Client, field: str, value: Any) -> None:
    error = refused(connection.post("/completions", json={"prompt": "x", "max_tokens": 2, field: value}))
    assert error["param"] == field


def test_unknown_fields_and_nulls_are_passed_over(connection: httpx.Client) -> None:
    extra = {"store": True, "user": "me", "metadata": {}, "parallel_tool_calls": True, "logit_bias": {}, "tools": []}
    nulls = dict.fromkeys(("temperature", "stop", "n", "seed", "response_format", "stream_options", "top_logprobs"))
    assert connection.post("/chat/completions", json={**HELLO, **extra, **nulls}).status_code == 200
    assert connection.post("/chat/completions", json={**HELLO, "top_k": -1, "top_p": 1}).status_code == 200


def test_one_constraint_at_a_time(connection: httpx.Client) -> None:
    both = {"response_format": {"type": "json_object"}, "guided_regex": "a"}
    assert refused(connection.post("/chat/completions", json={**HELLO, **both}))["param"] == "guided_regex"


def test_another_model_is_not_found(connection: httpx.Client) -> None:
    error = refused(connection.post("/chat/completions", json={**HELLO, "model": "gpt-4o"}), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("path", "prompt", "numbers"),
    [
        ("/chat/completions", {"messages": [{"role": "user", "content": "ab " * 600}]}, r"resulted in \d{3,4} tokens"),
        ("/chat/completions", {**HELLO, "max_tokens": 600}, r"6\d\d tokens \(\d\d in the messages, 600 in the comple"),
        ("/completions", {"prompt": [7] * 500, "max_tokens": 13}, r"513 tokens \(500 in the prompt, 13 in the complet"),
        ("/completions", {"prompt": [7] * 512}, r"resulted in 512 tokens"),
        ("/completions", {"prompt": [7] * 512, "stream": True}, r"resulted in 512 tokens"),
    ],
)
def test_what_does_not_fit_the_window_is_refused_in_words_that_lcdoc_knows(
    connection: httpx.Client, path: str, prompt: dict[str, Any], numbers: str
) -> None:
    answer = connection.post(path, json=prompt)
    error = refused(answer)
    assert error["code"] == "context_length_exceeded"
    assert error["message"].startswith("This model's maximum context length is 512 tokens. However, ")
    assert re.search(numbers, error["message"])
    refusal = Refusal(answer.status_code, dict(answer.headers), answer.text)
    understood = translated(refusal, model="m", url="u", key_hint="", sent=prompt)
    assert isinstance(understood, ContextOverflowError)
    assert understood.context_window == 512


def test_a_prompt_that_just_fits_is_answered(connection: httpx.Client) -> None:
    answer = connection.post("/completions", json={"prompt": [7] * 500, "max_tokens": 12, "ignore_eos": True})
    assert answer.json()["usage"]["total_tokens"] == 512


def test_lcdoc_understands_the_refusals(connection: httpx.Client) -> None:
    def understood(**changes: Any) -> Exception:
        body = {**HELLO, **changes}
        answer = connection.post("/chat/completions", json=body)
        refusal = Refusal(answer.status_code, dict(answer.headers), answer.text)
        return translated(refusal, model="m", url="u", key_hint="", sent=body)

    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}}
    found = understood(response_format=schema)
    assert isinstance(found, UnsupportedParameterError)
    assert found.parameter == "response_format"
    assert isinstance(understood(temperature=-1), RefusedRequestError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"\xff\xfe",
        b'{"messages": NaN}',
        b'{"temperature": 1e999}',
        b'{"temperature": ' + b"9" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "\\ud800": 1}',
        b"[" * 200_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
    ],
)
def test_a_body_that_is_no_sound_json_is_refused(connection: httpx.Client, body: bytes) -> None:
    assert refused(connection.post("/chat/completions", content=body))["code"] == "invalid_json"


def test_other_paths_methods_and_encodings(connection: httpx.Client, served: Served) -> None:
    refused(connection.get("/chat/completions"), 405)
    refused(connection.post("/embeddings", json={}), 404)
    refused(httpx.get(f"{served.root}/"), 404)
    refused(connection.post("/completions", content=b"x", headers={"Content-Encoding": "gzip"}), 415)


def test_a_schema_that_no_answer_of_this_length_can_follow(connection: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"long_name_of_a_field": {"type": "string"}}}
    schema["required"] = ["long_name_of_a_field"]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(connection.post("/chat/completions", json={**HELLO, "response_format": form}))
    assert error["param"] == "response_format.json_schema.schema"
    assert "max_tokens is 2" in error["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["messages", "prompt", "stop", "n", "logprobs", "top_logprobs", "seed", "max_tokens", "top_k"])
NAMES |= st.sampled_from(["response_format", "guided_json", "guided_regex", "structured_outputs", "stream_options"])
NAMES |= st.sampled_from(["tools", "tool_choice", "chat_template_kwargs", "logit_bias", "modalities", "model"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3), st.sampled_from(["/chat/completions", "/completions"]))
def test_no_body_makes_the_server_fail(served: Served, changes: dict[str, Any], path: str) -> None:
    body = {**HELLO, "prompt": "x", **changes}
    answer = served.post(path, content=json.dumps(body))
    assert answer.status_code in {200, 400, 404}, (body, answer.text)


SCHEMA_NAMES = st.sampled_from(["type", "properties", "required", "items", "enum", "const", "anyOf", "allOf", "$ref"])
SCHEMA_NAMES |= st.sampled_from(["minimum", "maximum", "multipleOf", "pattern", "format", "minItems", "maxItems"])
SCHEMA_NAMES |= st.sampled_from(["$defs", "additionalProperties", "patternProperties"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(SCHEMA_NAMES, JSON | st.sampled_from(["object", "number", "string", "array"]), max_size=4))
def test_no_schema_makes_the_server_fail(served: Served, schema: dict[str, Any]) -> None:
    body = {**HELLO, "max_tokens": 40, "response_format": {"type": "json_object", "schema": schema}}
    answer = served.post("/chat/completions", json=body)
    assert answer.status_code in {200, 400}, (schema, answer.text)
