"""What the span reader reads of a text: windows of tokens, each with the characters it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from lcdoc.agents.stems import STOP_WORDS

MAX_QUESTION_TOKENS = 48
WINDOW_TOKENS = 256
"""Of a passage, without the two special tokens. Longer passages are read in windows that overlap by half."""

Kinds = npt.NDArray[np.int64]
ASKED, PASSAGE, SHARED = 0, 1, 2
"""What a token is to the reader: of the question, or no word; of the passage; of the passage and in the question."""


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids between [CLS] and [SEP], and where each token stands in the text.

    `starts` and `ends` are character offsets of the inner tokens: one fewer at either end than `ids`.
    """

    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The packaged tokenizer, which neither truncates nor pads, and the ids that carry meaning."""

    tokenizer: Tokenizer
    begin: int
    end: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Raises KeyError when the tokenizer has no [CLS] or [SEP]."""
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids = tokenizer.get_vocab()
        return cls(tokenizer, ids["[CLS]"], ids["[SEP]"])

    def question(self, text: str) -> tuple[int, ...]:
        """The ids of a question; of a longer one, the last tokens, since what is asked comes last."""
        ids = self.tokenizer.encode(_encodable(text), add_special_tokens=False).ids
        return (self.begin, *ids[-MAX_QUESTION_TOKENS:], self.end)

    def windows(self, text: str, *, tokens: int = WINDOW_TOKENS) -> list[Window]:
        """The windows of a text, in order, overlapping by half; none for a text without tokens."""
        encoding = self.tokenizer.encode(_encodable(text), add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        windows: list[Window] = []
        for first in range(0, len(ids), max(1, tokens // 2)):
            part = slice(first, first + tokens)
            starts, ends = zip(*offsets[part], strict=True)
            windows.append(Window((self.begin, *ids[part], self.end), starts, ends))
            if first + tokens >= len(ids):
                break
        return windows

    def kinds(self, question: Sequence[int], window: Sequence[int]) -> Kinds:
        """What each token of the joined sequence is: (question + window,)."""
        asked = {token for token in question if self._carries_meaning(token)}
        kinds = [SHARED if token in asked else PASSAGE for token in window]
        kinds[0] = kinds[-1] = ASKED
        return np.array([ASKED] * len(question) + kinds, dtype=np.int64)

    def _carries_meaning(self, token: int) -> bool:
        return _carries_meaning(self.tokenizer.id_to_token(token))


@lru_cache(maxsize=4096)
def _carries_meaning(token: str) -> bool:
    word = token.removeprefix("##")
    return word.isalnum() and word not in STOP_WORDS


def _encodable(text: str) -> str:
    """`text` with the lone surrogates that the tokenizer cannot take replaced one for one."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
