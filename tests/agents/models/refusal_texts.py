# ruff: noqa: E501 - the texts are as servers send them
"""Error bodies of real servers, for the tests of the client and of its translation of errors."""

from __future__ import annotations

from lcdoc.tests.servers.chat_server import error_body

OPENAI_MAX_TOKENS = error_body(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    code="unsupported_parameter", param="max_tokens",
)  # fmt: skip
OPENAI_TEMPERATURE = error_body(
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    code="unsupported_value", param="temperature",
)  # fmt: skip
MISTRAL_STREAM_OPTIONS = {
    "object": "error",
    "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted", "input": {"include_usage": True}}]},
    "type": "invalid_request_error",
}  # fmt: skip
GEMINI_SEED = [
    {
        "error": {
            "code": 400,
            "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
            "status": "INVALID_ARGUMENT",
        }
    }
]
DEEPSEEK_LOGPROBS = error_body("deepseek-reasoner does not support the parameter `logprobs`")
GROQ_LOGPROBS = error_body("`logprobs` is not supported with this model")

FORMATS = [
        error_body("Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", param="response_format"),
        error_body("Invalid schema for response_format 'Note': In context=(), 'additionalProperties' is required", param="response_format"),
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        error_body("This response_format type is unavailable now"),
        error_body("This model does not support response format `json_schema`. See supported models"),
        {"object": "error", "message": "Grammar error: Unimplemented keys: [\"uniqueItems\"]", "code": 400},
    ]  # fmt: skip
"""Refusals of a `response_format`."""
