"""Quotes checked against the source: what a reader claims to have copied is found in the document, or it is no quote.

Three attempts, each stricter than what it lets through: the very characters; the characters without regard to case,
white space, hyphenation, line and page breaks, and typographic habit; and, for longer quotes, an alignment of at least
95 in which no number, sign, unit, negation or content word differs (rapidfuzz `partial_ratio_alignment`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Literal

from rapidfuzz.fuzz import ratio

from lcdoc.agents.folding import Folded, fold, fold_with_offsets
from lcdoc.agents.quote_alignment import ANCHOR, best_range, likely_starts
from lcdoc.agents.quote_guards import agrees, same_figures, same_signs
from lcdoc.agents.word_edges import to_whole_words, whole_words, with_edge_marks
from lcdoc.documents import Box, Document, Limits, Span

MatchStatus = Literal["exact", "normalised", "fuzzy"]
_WEAKER: dict[MatchStatus, int] = {"exact": 0, "normalised": 1, "fuzzy": 2}

MIN_FUZZY_SCORE = 95.0
MIN_FUZZY_CHARACTERS = 24
"""Folded length from which a quote may match approximately; shorter ones fit too many places by chance."""
MAX_FUZZY_CHARACTERS = 2_000
MIN_PART_CHARACTERS = 8
"""Folded length of each part of a quote with an ellipsis."""
MAX_PARTS = 8
MAX_ELLIPSIS_GAP = 2_000
"""Characters of source that one ellipsis may stand for."""
MAX_QUOTE_CHARACTERS = 50_000
WHOLE_WORDS_BELOW = 20
"""Quotes of fewer folded characters must begin and end at word boundaries of the source."""
_MAX_OCCURRENCES = 1_000


@dataclass(frozen=True)
class Citation:
    """A quote and the place in a document where it was found.

    `span` runs from the first to the last character quoted. A quote with an ellipsis has one span for each of its
    `parts`; any other has one part. `score` is 100 for exact and normalised matches, else the alignment's (95-100).
    """

    document_id: str
    span: Span
    status: MatchStatus
    score: float
    quote: str
    """The text as it stands in the source, white space collapsed for display."""
    pages: tuple[int, ...]
    """Numbers of the pages it touches, from 1."""
    labels: tuple[str, ...]
    """What is printed on those pages (`iv`, `12`)."""
    parts: tuple[Span, ...]
    occurrences: int = 1
    """How often the document has this text; the citation names one of the places."""
    headings: tuple[str, ...] = ()
    """Titles of the sections it stands in, outermost first."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A match: source offsets, how it was matched."""

    start: int
    end: int
    status: MatchStatus
    score: float = 100.0


def display_text(source: str) -> str:
    """`source` on one line: white space collapsed, a word broken at a line or page end put together at its hyphen."""
    return re.sub(r"\s+", " ", re.sub(r"(?<=\w-)\s*\n\s*(?=\w)", "", source)).strip()


_ELLIPSIS = re.compile(r"\s*[\[(<]?\s*(?:…|\.\s?\.\s?\.(?:\s?\.)*)\s*[\])>]?\s*")
_EDGE = re.compile(r"^(?:\s|…|\.{2,}|[\"'“”‘’])+|[\s.…,;:!?\"'“”‘’]+$")


class QuoteChecker:
    """Finds quotes in one document. The folded text is made at the first need and kept with the checker."""

    def __init__(self, document: Document) -> None:
        self.document = document

    @cached_property
    def _folded(self) -> Folded:
        return fold_with_offsets(self.document.body)

    def check(self, quote: str, *, near: Span | None = None) -> Citation | None:
        """Where `quote` stands in the document, or None.

        Of several places the one nearest to `near` is taken, else the first. Never raises for any `quote`.
        """
        if len(quote) > MAX_QUOTE_CHARACTERS:
            return None
        folded = fold(quote)
        # One letter is in every text; one digit or ideograph may be an answer.
        if not any(c.isalnum() for c in folded) or (len(folded) == 1 and folded.isascii() and folded.isalpha()):
            return None
        if places := self._literal(quote, folded):
            return self._citation([_nearest(places, near)], len(places))
        parts = [part for part in _ELLIPSIS.split(quote.strip()) if any(c.isalnum() for c in part)]
        if (
            1 < len(parts) <= MAX_PARTS
            and all(len(fold(part)) >= MIN_PART_CHARACTERS for part in parts)
            and (chain := self._elided(parts, near))
        ):
            return self._citation(*chain)
        if places := self._fuzzy(quote, folded, near):
            return self._citation([_nearest(places, near)], len(places))
        return None

    def _literal(self, quote: str, folded: str) -> list[_Place]:
        """Places of the quote as it stands, ellipses included: exact ones, else normalised ones."""
        places = list(self._exact(quote.strip())) or list(self._normalised(quote, folded))
        if not places:
            # What a quoting hand adds at the ends: a full stop where the sentence goes on, an ellipsis.
            bare = _EDGE.sub("", quote)
            bare_folded = fold(bare)
            if bare_folded and bare_folded != folded:
                places = list(self._normalised(bare, bare_folded))
        return places

    def _exact(self, quote: str) -> Iterator[_Place]:
        body = self.document.body
        start = body.find(quote)
        for _ in range(_MAX_OCCURRENCES):
            if start < 0:
                return
            end = start + len(quote)
            if whole_words(body, start, end, long=len(quote) >= WHOLE_WORDS_BELOW):
                yield _Place(start, end, "exact")
            start = body.find(quote, start + 1)

    def _normalised(self, quote: str, folded: str) -> Iterator[_Place]:
        body, projection = self.document.body, self._folded
        at = projection.text.find(folded)
        for _ in range(_MAX_OCCURRENCES):
            if at < 0:
                return
            start, end = projection.source_span(at, at + len(folded))
            start, end = with_edge_marks(quote, body, start, end)
            if (
                whole_words(body, start, end, long=len(folded) >= WHOLE_WORDS_BELOW)
                and agrees(quote, body[start:end])
                and same_signs(quote, body[start:end])
            ):
                yield _Place(start, end, "normalised")
            at = projection.text.find(folded, at + 1)

    def _fuzzy(self, quote: str, folded: str, near: Span | None) -> list[_Place]:
        if not MIN_FUZZY_CHARACTERS <= len(folded) <= MAX_FUZZY_CHARACTERS:
            return []
        projection = self._folded
        if near is not None:
            slack = 3 * len(folded)
            window = (projection.position(near.start) - slack, projection.position(near.end) + slack)
            # A passage is a few thousand characters; a `near` of a whole book is no help and would cost its square.
            if window[1] - window[0] <= 20_000 and (place := self._align(quote, folded, *window)):
                return [place]
        places: list[_Place] = []
        for diagonal in likely_starts(folded, projection.text):
            slack = len(folded) // 8 + ANCHOR
            place = self._align(quote, folded, diagonal - slack, diagonal + len(folded) + slack)
            if place and not any(place.start < other.end and other.start < place.end for other in places):
                places.append(place)
        return sorted(places, key=lambda place: place.start)

    def _align(self, quote: str, folded: str, start: int, end: int) -> _Place | None:
        """The quote in the folded characters `start` to `end`, aligned, with its words compared; None if it fails."""
        projection, body = self._folded, self.document.body
        start, end = max(0, start), min(len(projection.text), end)
        window = projection.text[start:end]
        found = best_range(folded, window, cutoff=MIN_FUZZY_SCORE - 5)
        if found is None:
            return None
        first, last = projection.source_span(start + found[0], start + found[1])
        first, last = to_whole_words(body, first, last)
        words = agrees(quote, body[first:last])
        if words is None:
            return None
        first, last = with_edge_marks(quote, body, first + words[0], first + words[1])
        matched = body[first:last]
        score = ratio(folded, fold(matched))
        if score < MIN_FUZZY_SCORE or not same_figures(quote, matched) or not whole_words(body, first, last, long=True):
            return None
        return _Place(first, last, "fuzzy", round(score, 1))

    def _elided(self, parts: list[str], near: Span | None) -> tuple[list[_Place], int] | None:
        """A place for each part, in order and close together, and in how many places the whole chain begins."""
        first, *others = [self._literal(part, fold(part)) or self._fuzzy(part, fold(part), near) for part in parts]
        chains: list[list[_Place]] = []
        for place in first:
            chain = [place]
            for candidates in others:
                behind = chain[-1].end
                after = [other for other in candidates if 0 <= other.start - behind <= MAX_ELLIPSIS_GAP]
                if not after:
                    break
                chain.append(min(after, key=lambda other: other.start))
            else:
                chains.append(chain)
        if not chains:
            return None
        best = min(chains, key=lambda chain: _distance(chain[0].start, chain[-1].end, near))
        return best, len(chains)

    def _citation(self, chain: list[_Place], occurrences: int) -> Citation:
        body = self.document.body
        span = Span(chain[0].start, chain[-1].end)
        pages = self.document.pages_of(span)
        return Citation(
            document_id=self.document.id,
            span=span,
            status=max((place.status for place in chain), key=lambda status: _WEAKER[status]),
            score=min(place.score for place in chain),
            quote=" … ".join(display_text(body[place.start : place.end]) for place in chain),
            pages=tuple(page.number for page in pages),
            labels=tuple(page.label for page in pages),
            parts=tuple(Span(place.start, place.end) for place in chain),
            occurrences=occurrences,
            headings=tuple(section.title for section in self.document.sections_at(span.start)),
        )


def _distance(start: int, end: int, near: Span | None) -> int:
    if near is None:
        return start
    return max(0, start - near.end, near.start - end)


def _nearest(places: list[_Place], near: Span | None) -> _Place:
    centre = 0 if near is None else near.start + near.end

    def distance(place: _Place) -> tuple[int, int]:
        return _distance(place.start, place.end, near), abs(place.start + place.end - centre)

    return min(places, key=distance)


_CHECKERS_KEPT = 4
_checkers: OrderedDict[str, QuoteChecker] = OrderedDict()
_checkers_lock = Lock()


def checker_for(document: Document) -> QuoteChecker:
    """A checker for `document`; those of the last few documents are kept, so a second quote costs no folding."""
    with _checkers_lock:
        checker = _checkers.get(document.id)
        if checker is None or checker.document.text is not document.text:
            checker = _checkers[document.id] = QuoteChecker(document)
        _checkers.move_to_end(document.id)
        while len(_checkers) > _CHECKERS_KEPT:
            _checkers.popitem(last=False)
        return checker


def check_quote(document: Document, quote: str, *, near: Span | None = None) -> Citation | None:
    """Where `quote` stands in `document`, or None: see `QuoteChecker.check`."""
    return checker_for(document).check(quote, near=near)


def citation_boxes(
    document: Document, citation: Citation, *, password: str | None = None, limits: Limits | None = None
) -> tuple[Box, ...]:
    """Rectangles around the quoted words on their pages, for highlighting; empty for formats without pages.

    Raises ValueError when the citation is of another document, and what `Document.boxes` raises.
    """
    if citation.document_id != document.id:
        raise ValueError(f"the citation is of document {citation.document_id}, not of {document.id} ({document.name})")
    return tuple(box for part in citation.parts for box in document.boxes(part, password=password, limits=limits))
