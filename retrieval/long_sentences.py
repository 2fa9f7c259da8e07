"""Pieces of a sentence that is longer than a passage may be: an endless list, a page of legal prose, a table without
lines, or text in a script whose full stops we do not know."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Final

_NOT_BLANK: Final = re.compile(r"\S")


def _visible(*strings: str) -> tuple[tuple[str, int], ...]:
    """Each with how many of its characters stay in the piece: all but the white space at its end."""
    return tuple((string, len(string.rstrip())) for string in strings)


_PLACES: Final = (
    (0.6, _visible("\n")),
    (0.6, _visible("; ", ": ", ";\n", ":\n", "— ", "；", "：")),
    (0.7, _visible(", ", ",\n", ") ", " | ", "，", "、", "،")),
    (0.3, _visible(" ", "\n", "\t")),
)
"""Where a piece may end, best first, and how far it must be filled for that."""


def cut_long_sentence(
    text: str, start: int, end: int, *, limit: int, count: Callable[[str], int], room: int | None = None
) -> list[tuple[int, int]]:
    """The sentence `text[start:end]` as pieces of at most `limit` tokens each, the first of at most `room`.

    Pieces are of like length, ordered and disjoint, begin and end with a character that is not white space, and cover
    every such character. They end with a line, a clause, a phrase or a word, whichever is near; inside a word only
    when it is longer than a piece. A single character is never cut, whatever `count` says of it.
    """
    pieces: list[tuple[int, int]] = []
    left = count(text[start:end])
    while True:
        allowed = room if room is not None and not pieces else limit
        if left <= allowed:
            pieces.append((start, end))
            return pieces
        # Equal shares, so that the last piece is no scrap.
        share = min(allowed, math.ceil(left / math.ceil(left / limit)))
        guess = start + max(1, (end - start) * share // left)
        stop, tokens = _fitting(text, start, min(guess, end - 1), allowed, count)
        pieces.append((start, start + len(text[start:stop].rstrip())))
        following = _NOT_BLANK.search(text, stop, end)
        if following is None:
            return pieces
        start = following.start()
        # Counts need not add up; near the end, where it matters, count anew.
        left = left - tokens if left - tokens > 3 * limit else count(text[start:end])


def _fitting(text: str, start: int, stop: int, allowed: int, count: Callable[[str], int]) -> tuple[int, int]:
    """Where to end the piece that begins at `start`, at or before `stop`, and its tokens."""
    stop = max(stop, start + 1)
    while True:
        stop = _good_end(text, start, stop)
        tokens = count(text[start:stop])
        length = stop - start
        if tokens <= allowed or length == 1:
            return stop, tokens
        stop = start + max(1, min(length * allowed // tokens, length * 9 // 10))


def _good_end(text: str, start: int, stop: int) -> int:
    """The best end of a piece at or before `stop`; always beyond `start`."""
    for filled, strings in _PLACES:
        lowest = start + max(1, int((stop - start) * filled))
        ends = [
            found + visible
            for string, visible in strings
            if (found := text.rfind(string, lowest, stop + len(string) - visible)) >= 0
        ]
        if ends:
            return max(ends)
    # Not between a letter and its accent or joiner.
    for position in range(stop, max(start + 1, stop - 8), -1):
        if not unicodedata.combining(text[position]) and "\u200d" not in text[position - 1 : position + 1]:
            return position
    return stop
