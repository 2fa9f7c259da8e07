"""How `/v1/chat/completions` writes answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lcdoc.local_engine.requests import Finish
from lcdoc.local_engine.serving.token_texts import ChatLogprobs
from lcdoc.local_engine.tokenizer import Tokenizer


class ChatApi:
    """Messages, and deltas of them."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any] | None:
        return _delta(index, {"role": "assistant", "content": ""})

    def pieces(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish | None
    ) -> Iterator[dict[str, Any]]:
        if text or logprobs is not None:
            yield {**_delta(index, {"content": text}), "logprobs": logprobs}
        if finish is not None:
            yield {**_delta(index, {}), "finish_reason": finish}

    def choice(self, index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def logprobs(self, tokenizer: Tokenizer) -> ChatLogprobs:
        return ChatLogprobs(tokenizer)


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
