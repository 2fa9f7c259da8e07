"""How `/v1/completions` writes answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lcdoc.local_engine.requests import Finish
from lcdoc.local_engine.serving.token_texts import CompletionLogprobs
from lcdoc.local_engine.tokenizer import Tokenizer


class CompletionApi:
    """Texts, and pieces of them, which look alike."""

    prefix = "cmpl"
    whole = "text_completion"
    chunk = "text_completion"

    def opening(self, index: int) -> dict[str, Any] | None:
        return None

    def pieces(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish | None
    ) -> Iterator[dict[str, Any]]:
        yield {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def choice(self, index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, tokenizer: Tokenizer) -> CompletionLogprobs:
        return CompletionLogprobs(tokenizer)
