"""Notes put together until one answer can be made from them: which are merged with which, round by round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

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


def merge_name(names: Sequence[str]) -> str:
    """The name of the note merged of these.

    The same for the same notes: of a round that is done again over more notes, no merge is taken for another.
    """
    return f"merge/{blake2b(chr(10).join(names).encode(), digest_size=8).hexdigest()}"


def after_round(level: Sequence[str], packs: Sequence[Sequence[str]], kept: Callable[[str], bool]) -> list[str]:
    """Names of the notes in `level` after a round that was to merge `packs`: a merged note in the place of its first.

    `kept` tells whether there is a note of a name; a pack whose merge failed stays as it was.
    """
    merged = {pack[0]: merge_name(pack) for pack in packs if kept(merge_name(pack))}
    members = {name for pack in packs if pack[0] in merged for name in pack}
    return [merged.get(name, name) for name in level if name in merged or name not in members]
