"""Headings of books and reports in plain text, told by their words, their numbers and the white space around them.

Underlined titles where there are any; else `CHAPTER IV`, `BOOK TWO: 1805`, `Part I. The Beginning`, lone roman numerals
that count up, `2.1 Methods`, and lines in capitals set off by blank lines. A heading that stands in a table of contents
is passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from lcdoc.documents.numerals import parse_number

_LONGEST: Final = 120
_LONGEST_SUBTITLE: Final = 80
_IN_CONTENTS: Final = 80
"""Characters of text after a heading that is only a line of the table of contents."""

_OUTER_TO_INNER: Final = ("volume", "book", "part", "act", "chapter", "scene", "section", "roman", "number", "capitals")
_LABELS: Final = {
    "volume": "volume vol. tome band tomo",
    "book": "book buch livre libro",
    "part": "part teil partie parte часть",
    "act": "act akt acte acto",
    "chapter": "chapter chap. canto letter stave lecture kapitel chapitre capítulo capitolo hoofdstuk глава",
    "scene": "scene szene scène",
    "section": "section article appendix abschnitt",
}
_KIND_OF_LABEL: Final = {label: kind for kind, labels in _LABELS.items() for label in labels.split()}
_LABEL: Final = "|".join(re.escape(label) for label in _KIND_OF_LABEL)
_LABELLED: Final = re.compile(
    rf"(?P<label>{_LABEL})\s+(?:the\s+)?(?P<number>[^\W\d_]+-[^\W\d_]+|[^\W\d_]+|\d{{1,4}})(?P<rest>(?!\w).*)",
    re.IGNORECASE | re.DOTALL,
)
_ORDINAL_FIRST: Final = re.compile(
    rf"(?:the\s+)?(?P<number>[a-z]+(?:-[a-z]+)?)\s+(?P<label>{_LABEL}|epilogue)(?P<rest>(?!\w).*)",
    re.IGNORECASE | re.DOTALL,
)
_WORDS: Final = re.compile(
    r"(?:the\s+|author.s\s+|translator.s\s+|editor.s\s+)?"
    r"(?:prologue|epilogue|preface|introduction|foreword|afterword|conclusion|contents|table of contents|dedication"
    r"|acknowledge?ments?|glossary|index|notes|footnotes|endnotes|bibliography|references|abstract|appendix|appendices"
    r"|summary|interlude|postscript|preamble|annex|vorwort|einleitung|préface|avant-propos|conclusions)[.:]?",
    re.IGNORECASE,
)
_ROMAN: Final = re.compile(r"([IVXLC]{1,8})(?:\.(?:\s+|$)|\s+|$)(.*)", re.DOTALL)
_NUMBER: Final = re.compile(r"(\d{1,2}(?:\.\d{1,2}){0,4})\.?\s+(\S.*)", re.DOTALL)
_NOT_HEADINGS: Final = re.compile(
    r"(?:the\s+)?(?:end|finis|fin|the end of .*|chorus|illustration|etc)\W*", re.IGNORECASE
)
_RULE: Final = re.compile(r"([=\-~^*#_+.:'\"`])\1{2,}")
# After this line stands the licence, which has sections of its own.
_END_OF_BOOK: Final = re.compile(r"\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines between blank lines."""

    lines: tuple[str, ...]
    """The first four, without the space around them."""
    line_count: int
    length: int
    blanks_before: int
    start: int
    """Its offset in the document."""

    @property
    def text(self) -> str:
        return " ".join(self.lines)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading and where it starts in the document."""

    title: str
    level: int
    start: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    kind: str
    title: str
    number: tuple[int, ...]
    index: int
    """Of its block."""
    bare: bool
    """Nothing but a label and a number: the next line may be its title."""
    follows: int = 0
    """Characters of text between it and the next candidate."""

    @property
    def key(self) -> tuple[str, tuple[int, ...], str]:
        return self.kind, self.number, "" if self.number else self.title.lower()


def find_headings(blocks: Sequence[Block]) -> list[Heading]:
    """The headings among `blocks`, outermost level 1, in order."""
    last = next((index for index, block in enumerate(blocks) if _END_OF_BOOK.match(block.lines[0])), len(blocks))
    underlined = _underlined(blocks[:last])
    if len(underlined) > 1:
        return underlined
    candidates = [_classify(block, index, blocks) for index, block in enumerate(blocks[:last])]
    return _headings([candidate for candidate in candidates if candidate], blocks[: last + 1])


def _underlined(blocks: Sequence[Block]) -> list[Heading]:
    """Titles with a rule under them (and perhaps over them). As in reStructuredText the first kind is the outermost."""
    levels: dict[tuple[str, bool], int] = {}
    headings: list[Heading] = []
    for block in blocks:
        over = len(block.lines) > 2 and bool(_RULE.fullmatch(block.lines[0]))
        title, *below = block.lines[over : over + 2]
        if not below or not _RULE.fullmatch(below[0]) or not 0.5 * len(title) <= len(below[0]) <= 2 * len(title) + 4:
            continue
        if len(title) > _LONGEST or not any(map(str.isalpha, title)):
            continue
        level = levels.setdefault((below[0][0], over), len(levels) + 1)
        headings.append(Heading(title, level, block.start))
    return headings


def _headings(candidates: list[_Candidate], blocks: Sequence[Block]) -> list[Heading]:
    candidates = _in_sequence(candidates)
    candidates = _plausible_capitals(candidates, blocks)
    candidates = _outside_contents(_with_gaps(candidates, blocks))
    candidates = _without_swallowed([_with_subtitle(candidate, blocks) for candidate in candidates])
    headings = _with_levels(candidates, blocks)
    end = blocks[-1] if blocks else None
    if end is not None and _END_OF_BOOK.match(end.lines[0]):
        headings.append(Heading(end.text.strip("* "), 1, end.start))
    return headings


def _classify(block: Block, index: int, blocks: Sequence[Block]) -> _Candidate | None:
    text = block.text
    if block.line_count > 3 or len(text) > _LONGEST:
        # A heading may stand on the first line of its paragraph, if it is unmistakable.
        labelled = _labelled(block.lines[0], index)
        return labelled if labelled is not None and labelled.bare else None
    if (candidate := _labelled(text, index)) is not None:
        return candidate
    if _WORDS.fullmatch(text):
        return _Candidate("words", text, (), index, False)
    if block.line_count == 1 and (candidate := _numbered(text, index)) is not None:
        return candidate
    return _capitals(block, index, blocks)


def _labelled(text: str, index: int) -> _Candidate | None:
    match = (_LABELLED.match(text) or _ORDINAL_FIRST.match(text)) if len(text) <= _LONGEST else None
    if match is None or not match["label"][0].isupper():
        return None
    number = parse_number(match["number"])
    rest = match["rest"].strip(" \t\n.")
    if number is None or (rest and rest[0].islower()) or rest.startswith((",", ";", "?", "!", "'", "’")):
        return None
    kind = _KIND_OF_LABEL.get(match["label"].lower(), "book")
    return _Candidate(kind, text, (number,), index, not rest)


def _numbered(text: str, index: int) -> _Candidate | None:
    """A roman numeral alone or before a title, or a decimal number before a title."""
    if (match := _ROMAN.fullmatch(text)) and (value := parse_number(match[1])) is not None:
        rest = match[2].strip()
        if not rest or _reads_as_title(rest):
            return _Candidate("roman", text, (value,), index, not rest)
    if (match := _NUMBER.fullmatch(text)) and _reads_as_title(match[2]):
        return _Candidate("number", text, tuple(int(part) for part in match[1].split(".")), index, False)
    return None


def _reads_as_title(text: str) -> bool:
    return len(text) <= _LONGEST_SUBTITLE and text[0].isupper() and text[-1] not in ".,;:?!\"'”’-—"


def _capitals(block: Block, index: int, blocks: Sequence[Block]) -> _Candidate | None:
    text = block.text
    letters = sum(map(str.isalpha, text))
    if block.line_count > 2 or len(text) > _LONGEST_SUBTITLE or letters < 4 or letters * 2 < len(text):
        return None
    if not text.isupper() or not text[0].isalnum() or text[-1] in ",;:!?\"'”’-—*":
        return None
    if _NOT_HEADINGS.fullmatch(text) or index + 1 >= len(blocks):
        return None
    return _Candidate("capitals", text, (), index, False)


def _in_sequence(candidates: list[_Candidate]) -> list[_Candidate]:
    """Without the numerals that do not count up: initials, list items, page numbers."""
    kept: set[int] = set()
    runs: dict[str, list[_Candidate]] = {"roman": [], "number": []}
    for candidate in candidates:
        if candidate.kind not in runs:
            continue
        run = runs[candidate.kind]
        if not run or not _comes_after(candidate.number, run[-1].number):
            if candidate.number[-1] != 1 or len(candidate.number) > 1:
                continue
            run.clear()
        run.append(candidate)
        if len(run) >= (2 if candidate.kind == "roman" else 3):
            kept.update(member.index for member in run)
    return [candidate for candidate in candidates if candidate.kind not in runs or candidate.index in kept]


def _comes_after(number: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """2 after 1 or 1.3; 1.1 after 1; 1.2 after 1.1 or 1.1.4."""
    depth = len(number)
    if depth > len(before):
        return depth == len(before) + 1 and number[:-1] == before and number[-1] == 1
    return number[:-1] == before[: depth - 1] and number[-1] == before[depth - 1] + 1


def _plausible_capitals(candidates: list[_Candidate], blocks: Sequence[Block]) -> list[_Candidate]:
    """Capitals are headings when set off well; a line that comes again and again is a speaker or a running head."""
    times = Counter(candidate.title for candidate in candidates if candidate.kind == "capitals")
    has_chapters = any(candidate.kind in _LABELS for candidate in candidates)
    needed = 2 if has_chapters else 1
    return [
        candidate
        for candidate in candidates
        if candidate.kind != "capitals"
        or (
            times[candidate.title] < 3
            and (candidate.index == 0 or blocks[candidate.index].blanks_before >= needed)
            and blocks[candidate.index + 1].blanks_before >= 1
        )
    ]


def _with_subtitle(candidate: _Candidate, blocks: Sequence[Block]) -> _Candidate:
    """`CHAPTER I` and the `A BIRTHDAY DINNER` under it are one title."""
    following = blocks[candidate.index + 1 : candidate.index + 3]
    if blocks[candidate.index].line_count > 3 or len(following) < 2:
        return (
            candidate
            if blocks[candidate.index].line_count <= 3
            else replace(candidate, title=blocks[candidate.index].lines[0])
        )
    if not candidate.bare:
        return candidate
    line, after = following
    text = line.text
    fits = line.line_count <= 2 and len(text) <= _LONGEST_SUBTITLE and line.blanks_before <= 3
    if not fits or _labelled(text, 0) is not None or text[0] in "\"'“‘":
        return candidate
    is_title = text.isupper() or (_reads_as_title(text) and (after.line_count > 1 or after.length >= 100))
    return replace(candidate, title=f"{candidate.title} {text}", bare=False) if is_title else candidate


def _without_swallowed(candidates: list[_Candidate]) -> list[_Candidate]:
    """Without those that became the subtitle of the candidate before."""
    kept: list[_Candidate] = []
    for candidate in candidates:
        if kept and candidate.index == kept[-1].index + 1 and kept[-1].title.endswith(f" {candidate.title}"):
            continue
        kept.append(candidate)
    return kept


def _with_gaps(candidates: list[_Candidate], blocks: Sequence[Block]) -> list[_Candidate]:
    ends = [*(candidate.index for candidate in candidates), len(blocks)][1:]
    totals = [0]
    for block in blocks:
        totals.append(totals[-1] + block.length)
    return [
        replace(candidate, follows=totals[end] - totals[candidate.index] - len(candidate.title))
        for candidate, end in zip(candidates, ends, strict=True)
    ]


def _outside_contents(candidates: list[_Candidate]) -> list[_Candidate]:
    """Without runs of headings that have next to no text between them and come again later."""
    last_seen = {candidate.key: position for position, candidate in enumerate(candidates)}
    dropped: set[int] = set()
    run: list[int] = []
    for position, candidate in enumerate(candidates):
        listed = candidate.follows <= 12 or (candidate.follows <= _IN_CONTENTS and last_seen[candidate.key] > position)
        if listed:
            run.append(position)
            continue
        # What ends the run is followed by text: it is a heading, and so are the outer ones right before it.
        inner = _depth(candidate)
        while run and _depth(candidates[run[-1]]) < inner:
            inner = _depth(candidates[run.pop()])
        if len(run) >= 3:
            dropped.update(run)
        run = []
    if len(run) >= 3:
        dropped.update(run)
    return [candidate for position, candidate in enumerate(candidates) if position not in dropped]


def _depth(candidate: _Candidate) -> int:
    return _OUTER_TO_INNER.index(candidate.kind) if candidate.kind in _OUTER_TO_INNER else 0


def _with_levels(candidates: list[_Candidate], blocks: Sequence[Block]) -> list[Heading]:
    """Levels by what occurs: a book with parts and chapters has two, one with chapters only has one."""
    kinds: list[str] = []
    for candidate in candidates:
        if candidate.kind in _OUTER_TO_INNER and candidate.kind not in kinds:
            kinds.append(candidate.kind)
    order = list(_OUTER_TO_INNER)
    if "part" in kinds and "book" in kinds and kinds.index("part") < kinds.index("book"):
        order[1], order[2] = order[2], order[1]
    if "roman" in kinds and "section" in kinds and kinds.index("roman") < kinds.index("section"):
        order[6], order[7] = order[7], order[6]
    present = [kind for kind in order if kind in kinds and kind != "capitals"]
    levels = {kind: level for level, kind in enumerate(present, 1)} | {"words": 1}
    headings: list[Heading] = []
    inside = 0
    for candidate in candidates:
        if candidate.kind == "capitals":
            level = inside + 1
        else:
            level = levels[candidate.kind] + max(0, len(candidate.number) - 1)
            inside = level
        headings.append(Heading(candidate.title, level, blocks[candidate.index].start))
    return headings
