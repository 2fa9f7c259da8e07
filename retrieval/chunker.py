"""Passages of a document: cut at sections first, then paragraphs, then sentences; spans, disjoint, in order."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

from lcdoc.documents import Document, Span
from lcdoc.retrieval.long_sentences import cut_long_sentence
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.sentences import sentence_bounds
from lcdoc.retrieval.tokens import estimate_each, estimate_tokens

_LEADERS: Final = re.compile(r"(?: ?\.){4,60}")
_REVISION: Final = 1
"""Goes up when the same parameters would cut the same document otherwise."""
_FILLED: Final = 0.55
"""A chunk filled this far may end early, with a paragraph."""
_OFF_MIDDLE: Final = 0.2
"""How far from their middle, in limits, the last two chunks may be parted so as to part them at a paragraph."""
_TITLE_SLACK: Final = 8
"""How much longer than its title a section's heading may be in the text (numbers, spaces)."""
_HEADING_CHARACTERS: Final = 100
_MOST_HEADINGS: Final = 4
"""Headings in a row that a cut gives way to."""


@dataclass(slots=True)
class _Run:
    """Sentences that are cut into chunks together: a section, or short ones and the one that follows them."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    headings: set[int] = field(default_factory=set)
    """Which of the sentences are headings of sections."""
    last_section: int = 0
    """Where the last section joined begins."""

    def extend(self, starts: list[int], ends: list[int], tokens: list[int]) -> None:
        self.starts += starts
        self.ends += ends
        self.tokens += tokens

    def join(self, other: _Run) -> None:
        """Append a section."""
        self.last_section = len(self.starts)
        self.headings.update(len(self.starts) + heading for heading in other.headings)
        self.extend(other.starts, other.ends, other.tokens)

    def is_only_headings(self) -> bool:
        """Whether the last section has no text of its own yet."""
        return all(index in self.headings for index in range(self.last_section, len(self.starts)))


@dataclass(frozen=True)
class Chunker:
    """Cuts documents into chunks of at most `max_tokens` tokens, as `count` counts them.

    A section start is always a chunk's start, unless the section before it is shorter than `min_tokens` or only a
    heading: then the two are joined. Inside a section, chunks are filled with whole sentences, end with a paragraph
    where one ends late enough and not with a heading, and the last two are of like length. A sentence is cut only if
    it is longer than `max_tokens` by itself. Pages are no boundaries. Chunks do not overlap, and cover every character
    of `Document.body` that is not white space.

    `count` is called on sentences; None means `estimate_tokens`. A chunk has the sum of the tokens of its sentences;
    the dots that lead from a title to a page number count as one, so that a table of contents is not one chunk a line.
    Raises ValueError unless 0 <= min_tokens <= max_tokens and max_tokens >= 1.
    """

    max_tokens: int = 180
    min_tokens: int = 30
    count: Callable[[str], int] | None = None

    @property
    def recipe(self) -> str:
        """Names how chunks are cut: a document kept under another recipe has other chunks."""
        counter = "estimated" if self.count is None else f"{self.count.__module__}.{self.count.__qualname__}"
        return f"chunker {_REVISION}: {self.min_tokens}-{self.max_tokens} tokens, {counter}"

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"chunk limits must satisfy 0 <= min_tokens <= max_tokens and max_tokens >= 1, "
                f"not min_tokens={self.min_tokens}, max_tokens={self.max_tokens}"
            )

    def chunks(self, document: Document) -> list[Chunk]:
        """The chunks of `document`, in order; none if its body is blank."""
        return [chunk for run in self._runs(document) for chunk in self._parted(document, run)]

    def _parted(self, document: Document, run: _Run) -> Iterator[Chunk]:
        last_path = _heading_path(document, run.starts[run.last_section])
        for first, last in pairwise(self._cuts(document.body, run)):
            path = last_path
            if first < run.last_section:
                # A chunk that begins with the headings of outer sections is about the section its text is in.
                about = next((index for index in range(first, last) if index not in run.headings), first)
                path = _heading_path(document, run.starts[about])
            yield Chunk(document.id, Span(run.starts[first], run.ends[last - 1]), path)

    def _runs(self, document: Document) -> Iterator[_Run]:
        ready: _Run | None = None
        run = _Run()
        tokens = 0
        for section in self._sections(document):
            self._add_section(run, document.body, section)
            tokens += sum(section.tokens)
            if tokens < self.min_tokens or run.is_only_headings():
                continue
            if ready:
                yield ready
            ready, run, tokens = run, _Run(), 0
        if ready and run.starts:
            # The end of the document is too short to stand alone, and nothing follows it.
            ready.join(run)
        if ready or run.starts:
            yield ready or run

    def _sections(self, document: Document) -> Iterator[_Run]:
        """The sentences from each section start to the next, unless there are none, with the headings among them."""
        body = document.body
        titles = {0: 0} | {section.start: len(section.title) for section in document.sections}
        sections: list[_Run] = []
        texts: list[str] = []
        for start, end in pairwise([*sorted(titles), len(body)]):
            starts, ends = sentence_bounds(body, start, end)
            if starts:
                sections.append(_Run(starts, ends, [], _headings(starts, ends, titles[start])))
                texts += [body[first:last] for first, last in zip(starts, ends, strict=True)]
        _shorten_leaders(body, sections, texts)
        counts = estimate_each(texts) if self.count is None else list(map(self.count, texts))
        position = 0
        for section in sections:
            section.tokens = counts[position : position + len(section.starts)]
            position += len(section.starts)
            yield section

    def _add_section(self, run: _Run, body: str, section: _Run) -> None:
        """Append a section to a run, the sentences above the limit in pieces."""
        if max(section.tokens) <= self.max_tokens:
            run.join(section)
            return
        pieces = _Run(headings=section.headings)
        for index, tokens in enumerate(section.tokens):
            start, end = section.starts[index], section.ends[index]
            if tokens <= self.max_tokens:
                pieces.extend([start], [end], [tokens])
            else:
                # What follows a heading begins in the same chunk.
                heading = sum(pieces.tokens) if index == len(section.headings) else 0
                self._add_long(pieces, body, Span(start, end), self.max_tokens - heading)
        run.join(pieces)

    def _add_long(self, run: _Run, body: str, sentence: Span, room: int) -> None:
        """Append a sentence above the limit in pieces, the first of at most `room` tokens if that is not too little."""
        count = self.count or estimate_tokens
        pieces = cut_long_sentence(
            body,
            sentence.start,
            sentence.end,
            limit=self.max_tokens,
            count=count,
            room=room if 2 * room > self.max_tokens else None,
        )
        starts, ends = [start for start, _ in pieces], [end for _, end in pieces]
        run.extend(starts, ends, [count(body[start:end]) for start, end in pieces])

    def _cuts(self, body: str, run: _Run) -> list[int]:
        """The indices of the sentences that chunks begin with, and the number of sentences."""
        total = [0, *accumulate(run.tokens)]
        number = len(run.tokens)
        cuts = [0]
        while cuts[-1] < number - 1 and total[number] - total[cuts[-1]] > self.max_tokens:
            cuts.append(self._next_cut(body, run, total, cuts[-1]))
        return [*cuts, number]

    def _next_cut(self, body: str, run: _Run, total: list[int], first: int) -> int:
        """Before which sentence the chunk that begins with sentence `first` ends; `total` are running sums of tokens.

        More than one chunk is left.
        """
        start, limit = total[first], self.max_tokens
        # A sentence or piece exceeds the limit only where it cannot be cut: a single character.
        most = max(first + 1, bisect_right(total, start + limit) - 1)
        left = total[-1] - start
        if left > 2 * limit:
            fewest = max(first + 1, bisect_left(total, start + limit * _FILLED))
            best = most
        else:
            # Two chunks are left, if sentences allow.
            fewest = max(first + 1, bisect_left(total, total[-1] - limit))
            if fewest > most:
                return most
            middle = start + left / 2
            best = min(range(fewest, most + 1), key=lambda cut: abs(total[cut] - middle))
            fewest = max(fewest, bisect_left(total, middle - limit * _OFF_MIDDLE))
            most = min(most, bisect_right(total, middle + limit * _OFF_MIDDLE) - 1)
        for cut in sorted(range(fewest, most + 1), key=lambda cut: abs(cut - best)):
            if _begins_paragraph(body, run, cut) and not _follows_heading(body, run, cut):
                return cut
        for cut in range(best, max(fewest, best - _MOST_HEADINGS) - 1, -1):
            if not _follows_heading(body, run, cut):
                return cut
        return best


def _shorten_leaders(body: str, sections: list[_Run], texts: list[str]) -> None:
    """Replace the dots of leaders by one in the texts of the sentences of the sections."""
    if "...." not in body and ". . . ." not in body:
        return
    starts = [start for section in sections for start in section.starts]
    for dots in ("....", ". . . ."):
        found = body.find(dots)
        while found >= 0:
            index = bisect_right(starts, found) - 1
            texts[index] = _LEADERS.sub(" .", texts[index])
            following = starts[index + 1] if index + 1 < len(starts) else len(body)
            found = body.find(dots, following)


def _heading_path(document: Document, offset: int) -> tuple[str, ...]:
    return tuple(section.title for section in document.sections_at(offset))


def _headings(starts: list[int], ends: list[int], title: int) -> set[int]:
    """Which sentences of a section stand where its title of `title` characters stands."""
    title_end = starts[0] + title
    number = 0
    while number < len(starts) and starts[number] < title_end and ends[number] <= title_end + _TITLE_SLACK:
        number += 1
    return set(range(number))


def _begins_paragraph(body: str, run: _Run, index: int) -> bool:
    return body.count("\n", run.ends[index - 1], run.starts[index]) > 1


def _follows_heading(body: str, run: _Run, index: int) -> bool:
    """Whether the sentence before `index` is a heading, of a section or by its looks, of what begins there."""
    if index - 1 in run.headings:
        return True
    start, end = run.starts[index - 1], run.ends[index - 1]
    return (
        end - start <= _HEADING_CHARACTERS
        and body[end - 1].isalpha()
        and _begins_paragraph(body, run, index)
        and (index == 1 or _begins_paragraph(body, run, index - 1))
    )
