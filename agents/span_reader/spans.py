"""From logits to answers: the likeliest spans of a window, each scored against no answer at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lcdoc.agents.span_reader.windows import Window

LONGEST_TOKENS = 30
"""Of an answer, as in training."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """Characters `start` to `end` of the text that was read, and by how much they beat "no answer" (a log-odds)."""

    start: int
    end: int
    margin: float

    def overlaps(self, other: Answer) -> bool:
        return self.start < other.end and other.start < self.end


class SpanFinder(Protocol):
    """Finds the words of texts that answer a question."""

    def answers(self, question: str, texts: Sequence[str], *, each: int = 1) -> list[list[Answer]]:
        """Of every text its `each` best answers that do not overlap, best first."""
        ...


def answers_of(logits: Floats, window: Window, text: str, *, most: int) -> list[Answer]:
    """The best spans of a window that do not overlap, at most `most`, best first.

    logits: (1 + tokens, 2) of starts and ends: "no answer" first, then the window's inner tokens.
    """
    nothing, starts, ends = float(logits[0].sum()), logits[1:, 0], logits[1:, 1]
    tokens = len(starts)
    scores = np.full((tokens, min(LONGEST_TOKENS, tokens)), -np.inf, dtype=np.float32)
    for extra in range(scores.shape[1]):
        scores[: tokens - extra, extra] = starts[: tokens - extra] + ends[extra:]
    found: list[Answer] = []
    while len(found) < most:
        first, extra = divmod(int(scores.argmax()), scores.shape[1])
        best = float(scores[first, extra])
        if best == -np.inf:
            break
        last = first + extra
        start, end = whole_words(text, window.starts[first], window.ends[last])
        found.append(Answer(start, end, best - nothing))
        # What begins in it, and what ends in it or behind it, is taken.
        scores[first : last + 1] = -np.inf
        for before in range(max(0, first - LONGEST_TOKENS), first):
            scores[before, first - before :] = -np.inf
    return found


def whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """The span with the rest of the words it begins and ends in, and with the bracket that it opens or closes."""
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum():
        end += 1
    inside = text[start:end]
    if inside.count("(") == inside.count(")") + 1 and text[end : end + 1] == ")":
        end += 1
    return start, end
