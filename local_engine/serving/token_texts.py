"""Tokens and their log-probabilities as both APIs write them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from lcdoc.local_engine.sampling import Sampled
from lcdoc.local_engine.tokenizer import Tokenizer

_UNLIKELY = -9999.0
"""OpenAI's word for a token without a figure: here one that a constraint put in the drawn one's place."""


class ChatLogprobs:
    """Of one answer, in the chat API's shape."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def of(self, tokens: Sequence[Sampled]) -> dict[str, Any]:
        content = [
            {
                **self._token(each.token, each.logprob),
                "top_logprobs": [self._token(token, logprob) for token, logprob in each.top],
            }
            for each in tokens
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        octets = self._tokenizer.token_bytes(token)
        return {"token": octets.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(octets)}


class CompletionLogprobs:
    """Of one answer, in the completion API's shape; it keeps count of where in the text a token begins."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def of(self, tokens: Sequence[Sampled]) -> dict[str, Any]:
        offsets = []
        for each in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(each.token)))
        return {
            "tokens": [self._text(each.token) for each in tokens],
            "token_logprobs": [_finite(each.logprob) for each in tokens],
            "top_logprobs": [
                {self._text(token): _finite(logprob) for token, logprob in (*each.top, (each.token, each.logprob))}
                for each in tokens
            ],
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        octets = self._tokenizer.token_bytes(token)
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{octet:02x}" for octet in octets)


def _finite(logprob: float | None) -> float:
    return _UNLIKELY if logprob is None else max(_UNLIKELY, logprob)
