"""The sentences and table rows of passages, each of which may be quoted as evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lcdoc.agents.folding import fold
from lcdoc.agents.quotes import display_text
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import stems_of
from lcdoc.documents import Span
from lcdoc.retrieval.sentences import sentence_spans

MAX_CANDIDATE_CHARACTERS = 700
"""Longer sentences (lists, legal prose, tables without line ends) are cut at semicolons or line ends."""

_FIGURE = r"(?:[-−–]?\(?[$€£¥]?\s?\(?\d[\d.,]*\)?\s?%?\)?|[-—–]|n/?[am])"
_ROW = re.compile(rf"(?:^|\s){_FIGURE}(?:\s+[$€£¥]?\s*{_FIGURE})+\s*[$%)]?$", re.IGNORECASE)
_YEARS = re.compile(r"\b(?:19|20)\d\d\b")
_WORDS = re.compile(r"[^\W\d_]+")
_HEADER_WORDS = 8
"""Words a line of years may have ("For the Years Ended December 31"); with more it is a sentence or a row."""
_STOPS = ".!?…。！？।;:,"
_CLOSERS = "\"”’')]}»"
_FRAGMENT_CHARACTERS = 80
_HEADER_LINES = 40
_HEADER_REACH = 1_800
"""Characters before a row in which the years that head its columns are looked for."""


@dataclass(frozen=True)
class Candidate:
    """A sentence or a row of a table. `passage` is the index, among the passages at hand, of the one it is in."""

    passage: int
    span: Span
    raw: str
    header: Span | None = None
    """Of a table row, the line above that heads its columns with years, if there is one."""
    header_stems: tuple[str, ...] = ()

    @cached_property
    def text(self) -> str:
        """The candidate on one line."""
        return display_text(self.raw)

    @cached_property
    def stems(self) -> list[str]:
        return stems_of(self.raw)

    @cached_property
    def is_row(self) -> bool:
        return is_row(self.raw)

    @cached_property
    def is_fragment(self) -> bool:
        """Whether it is a heading, or looks like one: a few words that no stop ends."""
        stopped = self.text.rstrip(_CLOSERS)[-1:] in _STOPS
        return len(self.text) <= _FRAGMENT_CHARACTERS and not stopped and not self.is_row


def is_row(text: str) -> bool:
    """Whether `text` ends in at least two figures, as a row of a table does, and not in a full stop after a date."""
    shown = display_text(text)
    return not shown.endswith(".") and _ROW.search(shown) is not None


def candidates_of(passages: Sequence[Passage]) -> list[Candidate]:
    """The candidates of all passages, in order; a sentence that two passages share is one candidate, of the first."""
    seen: set[tuple[str, Span]] = set()
    candidates: list[Candidate] = []
    for index, passage in enumerate(passages):
        body = passage.document.body
        titles = {fold(title) for title in passage.heading_path}
        for sentence in sentence_spans(body, passage.span.start, passage.span.end):
            for span in cut_long(body, sentence):
                raw = span.of(body)
                key = (passage.document.id, span)
                # A heading says what a text is about; it is no evidence. It counts as the passage's heading path.
                if key not in seen and any(map(str.isalnum, raw)) and fold(raw) not in titles:
                    seen.add(key)
                    header = column_header(body, span) if is_row(raw) else None
                    stems = tuple(stems_of(header.of(body))) if header else ()
                    candidates.append(Candidate(index, span, raw, header, stems))
    return candidates


def cut_long(body: str, sentence: Span) -> list[Span]:
    """`sentence`, or its parts if it is too long: cut after a semicolon, else at a line end, else at a space."""
    parts: list[Span] = []
    start = sentence.start
    while sentence.end - start > MAX_CANDIDATE_CHARACTERS:
        window = body[start : start + MAX_CANDIDATE_CHARACTERS]
        least = MAX_CANDIDATE_CHARACTERS // 4
        cuts = (
            max(window.rfind("; ", least), window.rfind(";\n", least)) + 1,
            window.rfind("\n", least),
            window.rfind(" ", least),
        )
        cut = start + next((at for at in cuts if at > 0), MAX_CANDIDATE_CHARACTERS)
        parts.append(Span(start, start + len(body[start:cut].rstrip())))
        rest = body[cut : sentence.end]
        start = sentence.end - len(rest.lstrip())
    if start < sentence.end:
        parts.append(Span(start, sentence.end))
    return parts


def column_header(body: str, row: Span) -> Span | None:
    """The line above a table row that heads its columns with years; None when there is none close by."""
    floor = max(0, row.start - _HEADER_REACH)
    end = row.start
    for _ in range(_HEADER_LINES):
        end = len(body[floor:end].rstrip()) + floor
        start = max(floor, body.rfind("\n", floor, end) + 1)
        line = body[start:end]
        years = len(_YEARS.findall(line)) >= 2 and len(_WORDS.findall(line)) <= _HEADER_WORDS
        if years and len(line) <= 200 and not line.rstrip().endswith((".", ";", ",")):
            return Span(start + len(line) - len(line.lstrip()), end)
        if start <= floor:
            return None
        end = start
    return None
