"""Where in a long text a quote might stand approximately, found without comparing it with the whole text.

Both are folded. A quote shares short pieces with the place it was copied from; pieces vote for the places they occur
at, and only the few places with the most votes are aligned (rapidfuzz `partial_ratio_alignment`).
"""

from __future__ import annotations

from collections import Counter

from rapidfuzz.fuzz import partial_ratio_alignment

ANCHOR = 8
"""Characters of a piece."""
_MAX_ANCHORS = 40
_MAX_ANCHOR_HITS = 64
"""Pieces that occur more often than this tell no places apart."""
_MAX_PLACES = 8
_END = 150
"""Characters at either end of a long quote by which it is aligned."""


def likely_starts(quote: str, text: str) -> list[int]:
    """Where in `text` the quote might begin, roughly: at most eight places, most shared pieces first.

    At a score of 95 at most one character in ten is edited, so among disjoint pieces of eight some are intact.
    """
    starts = list(range(0, len(quote) - ANCHOR + 1, ANCHOR))
    if len(starts) > _MAX_ANCHORS:
        starts = [starts[index * len(starts) // _MAX_ANCHORS] for index in range(_MAX_ANCHORS)]
    votes: Counter[int] = Counter()
    width = max(16, len(quote) // 8)
    # A few pieces from all over the quote mostly name the place; only if they do not, the others are searched.
    for pieces in (starts[::4], [start for index, start in enumerate(starts) if index % 4]):
        for offset in pieces:
            votes.update({(at - offset) // width for at in _hits(quote[offset : offset + ANCHOR], text)})
        # A place may fall on the edge between two buckets, so that each holds about half of its votes.
        if votes and votes.most_common(1)[0][1] > max(1, len(pieces) // 3):
            break
    return [bucket * width for bucket, _ in votes.most_common(_MAX_PLACES)]


def _hits(piece: str, text: str) -> list[int]:
    """Where `piece` stands in `text`; nothing if it is too common."""
    hits: list[int] = []
    at = text.find(piece)
    while at >= 0:
        hits.append(at)
        if len(hits) > _MAX_ANCHOR_HITS:
            return []
        at = text.find(piece, at + 1)
    return hits


def best_range(quote: str, window: str, *, cutoff: float) -> tuple[int, int] | None:
    """Where in `window` the quote fits best, roughly; None where it clearly does not.

    Aligning costs the product of the lengths, so of a long quote only the beginning and the end are aligned.
    """
    if len(window) < len(quote) * 0.9:
        return None
    if len(window) <= len(quote):
        return 0, len(window)
    if len(quote) <= 2 * _END:
        alignment = partial_ratio_alignment(quote, window, score_cutoff=cutoff)
        return (alignment.dest_start, alignment.dest_end) if alignment else None
    reach = len(window) - len(quote) + _END
    head = partial_ratio_alignment(quote[:_END], window[: reach + _END], score_cutoff=75)
    tail_from = max(0, len(window) - reach - _END)
    tail = partial_ratio_alignment(quote[-_END:], window[tail_from:], score_cutoff=75)
    if head is None or tail is None or tail_from + tail.dest_end <= head.dest_start:
        return None
    return head.dest_start, tail_from + tail.dest_end
