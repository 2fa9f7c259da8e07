"""Notes put together until one answer can be made from them: which are merged with which, round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcdoc.agents.notes import Note
from lcdoc.agents.packing import packed

_QUOTE_TOKENS = 60
"""Around a quote: its fence, number, place and confidence."""
_SHARE_OF_ROOM = 0.8
"""Of a reading's room, what notes may take in a merge or an answer, whose instructions and results differ in length."""


def note_tokens(note: Note, count: Callable[[str], int]) -> int:
    """About how long `note` is where an answer is made from it."""
    quotes = sum(
        count(quote.citation.quote) + count(quote.claim or note.claim) + _QUOTE_TOKENS for quote in note.quotes
    )
    return quotes or count(note.claim) + _QUOTE_TOKENS


def merge_packs(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Which notes (numbers from 0) to merge with which, neighbours only; empty when all of them fit into one answer.

    `sizes` are tokens of notes, `room` those of a reading. Empty as well where merging cannot help: two notes do not
    fit together.
    """
    room = max(1, int(room * _SHARE_OF_ROOM))
    if sum(sizes) <= room:
        return []
    packs = packed(range(len(sizes)), [min(size, room) for size in sizes], room)
    return packs if len(packs) < len(sizes) else []
