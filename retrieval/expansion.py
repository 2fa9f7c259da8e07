"""More of the text around a passage: its neighbours, or the section it is in, as far as a budget of tokens allows.

Search works best on small passages, readers on larger ones; so the passage that was found is widened before it is read.
What is returned is one span of the document, and the passage is always within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from lcdoc.documents import Document, Span
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.sentences import sentence_bounds
from lcdoc.retrieval.tokens import estimate_tokens

_MOST_CHARACTERS_PER_TOKEN: Final = 12
"""How far to look for text that fills a budget. Blanks and very long words aside, no text has fewer tokens."""


def neighbours(
    document: Document,
    chunks: Sequence[Chunk],
    index: int,
    *,
    max_tokens: int,
    count: Callable[[str], int] = estimate_tokens,
) -> Span:
    """`chunks[index]` with the chunks after and before it, in turn, while all together have at most `max_tokens`.

    `chunks` are those of `document`, in order. A chunk larger than the budget is returned as it is. Raises IndexError
    when there is no such chunk.
    """
    if not 0 <= index < len(chunks):
        raise IndexError(f"no chunk {index} among {len(chunks)}")
    after = (chunks[position].span for position in range(index + 1, len(chunks)))
    before = (chunks[position].span for position in range(index - 1, -1, -1))
    return _grown(document.body, chunks[index].span, before, after, max_tokens=max_tokens, count=count)


def parent_section(
    document: Document, chunk: Chunk, *, max_tokens: int, count: Callable[[str], int] = estimate_tokens
) -> Span:
    """The outermost section around `chunk` that has at most `max_tokens`, without white space at its ends.

    Where the innermost one is too large, the sentences of it around the chunk, as many as fit. A document that has no
    section there counts as one section. A chunk larger than the budget is returned as it is.
    """
    body = document.body
    sections = [section.span for section in document.sections_at(chunk.span.start) if section.span.covers(chunk.span)]
    sections.insert(0, Span(0, len(body)))
    best: Span | None = None
    for section in reversed(sections):
        if not _fits(body, section, max_tokens, count):
            break
        best = section
    if best:
        return _trimmed(body, best)
    section = sections[-1]
    reach = max_tokens * _MOST_CHARACTERS_PER_TOKEN
    before = _sentences_before(body, max(section.start, chunk.span.start - reach), chunk.span.start, section.start)
    after = _sentences_after(body, chunk.span.end, min(section.end, chunk.span.end + reach), section.end)
    return _grown(body, chunk.span, before, after, max_tokens=max_tokens, count=count)


def _grown(
    body: str,
    span: Span,
    before: Iterable[Span],
    after: Iterable[Span],
    *,
    max_tokens: int,
    count: Callable[[str], int],
) -> Span:
    """`span` with the spans after and before it, which come nearest first, in turn, while they fit."""
    start, end = span.start, span.end
    left = max_tokens - count(span.of(body))
    sides: list[Iterator[Span]] = [iter(after), iter(before)]
    while sides:
        side = sides.pop(0)
        more = next(side, None)
        if more is None or (tokens := count(more.of(body))) > left:
            continue
        left -= tokens
        start, end = min(start, more.start), max(end, more.end)
        sides.append(side)
    return Span(start, end)


def _sentences_before(body: str, start: int, end: int, section_start: int) -> Iterator[Span]:
    starts, ends = sentence_bounds(body, start, end)
    # The first one may be cut by the reach, unless the section begins there.
    whole = 0 if start == section_start else 1
    return (Span(starts[index], ends[index]) for index in range(len(starts) - 1, whole - 1, -1))


def _sentences_after(body: str, start: int, end: int, section_end: int) -> Iterator[Span]:
    starts, ends = sentence_bounds(body, start, end)
    whole = len(starts) if end == section_end else len(starts) - 1
    return (Span(starts[index], ends[index]) for index in range(whole))


def _fits(body: str, span: Span, max_tokens: int, count: Callable[[str], int]) -> bool:
    """Whether the span has at most `max_tokens`; of one that is far too long, only a part is counted."""
    most = span.start + max_tokens * _MOST_CHARACTERS_PER_TOKEN
    if most < span.end and count(body[span.start : most]) > max_tokens:
        return False
    return count(span.of(body)) <= max_tokens


def _trimmed(body: str, span: Span) -> Span:
    text = span.of(body)
    return Span(span.start + len(text) - len(text.lstrip()), span.start + len(text.rstrip()))
