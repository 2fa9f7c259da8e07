"""Passages packed into as few calls as fit a model's window, evenly, and cut at sentences where they must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lcdoc.agents.reader import Passage
from lcdoc.documents import Span
from lcdoc.retrieval.long_sentences import cut_long_sentence
from lcdoc.retrieval.sentences import sentence_spans

Item = TypeVar("Item")
Count = Callable[[str], int]
Shared = Mapping[str, int]
"""Sizes of what an item needs beside itself, by name."""


def packed(
    items: Sequence[Item], sizes: Sequence[int], room: int, shared: Sequence[Shared] | None = None
) -> list[list[Item]]:
    """`items` in order as the fewest runs whose sizes add up to at most `room`, the fullest as small as it can be.

    `shared` is what each item needs beside itself, by name with its size: a run has it once for all its items. Raises
    ValueError when one item alone, with what it shares, is larger than `room`.
    """
    if not items:
        return []
    beside = shared or [{}] * len(items)
    alone = [size + sum(parts.values()) for size, parts in zip(sizes, beside, strict=True)]
    if max(alone) > room:
        raise ValueError(f"an item of {max(alone)} tokens does not fit into {room}")
    runs = _filled(sizes, beside, room)
    low, high = max(*alone, -(-sum(sizes) // len(runs))), room
    while low < high:
        middle = (low + high) // 2
        if len(_filled(sizes, beside, middle)) <= len(runs):
            high = middle
        else:
            low = middle + 1
    return [[items[index] for index in run] for run in _filled(sizes, beside, low)]


def _filled(sizes: Sequence[int], beside: Sequence[Shared], room: int) -> list[list[int]]:
    runs: list[list[int]] = []
    left = 0
    there: set[str] = set()
    for index, (size, parts) in enumerate(zip(sizes, beside, strict=True)):
        needed = size + sum(tokens for name, tokens in parts.items() if name not in there)
        if not runs or needed > left:
            runs.append([])
            left, there = room, set()
            needed = size + sum(parts.values())
        runs[-1].append(index)
        left -= needed
        there.update(parts)
    return runs


def cut_passage(passage: Passage, room: int, count: Count) -> list[Passage]:
    """`passage` in pieces of at most `room` tokens of text: whole sentences, unless one alone is longer.

    Pieces are of like length; spans of the document, in order, that cover all but white space. Raises ValueError when
    `room` is less than 1.
    """
    if room < 1:
        raise ValueError(f"there is no room for text: {room} tokens")
    body, span = passage.document.body, passage.span
    spans: list[Span] = []
    for sentence in sentence_spans(body, span.start, span.end):
        if count(sentence.of(body)) <= room:
            spans.append(sentence)
        else:
            pieces = cut_long_sentence(body, sentence.start, sentence.end, limit=room, count=count)
            spans += [Span(start, end) for start, end in pieces]
    # Counted with the white space up to the next one, which the piece will have.
    ends = [following.start for following in spans[1:]] + [span.end]
    sizes = [min(room, count(body[one.start : end])) for one, end in zip(spans, ends, strict=True)]
    return [_piece(passage, run) for run in packed(spans, sizes, room)]


def halves(passages: Sequence[Passage]) -> tuple[list[Passage], list[Passage]] | None:
    """`passages` in two parts of like length, a single one parted between sentences, else words; None if it has one."""
    if len(passages) > 1:
        sizes = [len(passage.span) for passage in passages]
        at = min(range(1, len(passages)), key=lambda index: abs(sum(sizes[:index]) - sum(sizes[index:])))
        return list(passages[:at]), list(passages[at:])
    (passage,) = passages
    parts = sentence_spans(passage.document.body, passage.span.start, passage.span.end)
    if len(parts) < 2:
        words = len(passage.text.split())
        if words < 2:
            return None
        parts = [piece.span for piece in cut_passage(passage, -(-words // 2), lambda text: len(text.split()))]
        if len(parts) < 2:
            return None
    centre = (passage.span.start + passage.span.end) // 2
    at = min(range(1, len(parts)), key=lambda index: abs(parts[index].start - centre))
    return [_piece(passage, parts[:at])], [_piece(passage, parts[at:])]


def shortened(text: str, room: int, count: Count) -> str:
    """`text` if it has at most `room` tokens, else its beginning with an ellipsis."""
    if count(text) <= room:
        return text
    _, end = cut_long_sentence(text, 0, len(text), limit=max(1, room - 1), count=count)[0]
    return f"{text[:end]}…"


def _piece(passage: Passage, spans: Sequence[Span]) -> Passage:
    return replace(passage, span=Span(spans[0].start, spans[-1].end))
