"""Plain text in any encoding: hard-wrapped or one line a paragraph, with or without chapter headings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.document import Mark, MarkKind
from lcdoc.documents.plain_headings import Block, find_headings
from lcdoc.documents.plain_running import Paragraph, running_paragraphs
from lcdoc.documents.text import join_hyphenated, normalise, vocabulary
from lcdoc.documents.text_file import read_text

READER: Final = "charset-normalizer"
REVISION: Final = 1

_LONG_LINE: Final = 160
"""Nobody wraps at more; a text whose lines are longer has one paragraph to a line."""
_LONGEST_WORD: Final = 80
_LONGEST_LINE: Final = 2_000
"""Words are not joined on to a longer line: a file of nothing but broken words would cost its square."""
_WORD_BEFORE_HYPHEN: Final = re.compile(r"((?:[^\W\d_]+-)*[^\W\d_]+)-\Z")
_WORD: Final = re.compile(r"[^\W\d_]+")
_GUTENBERG_TITLE: Final = re.compile(r"^Title:[ \t]*(\S.*(?:\n[ \t]+\S.*){0,3})", re.MULTILINE)


def version() -> str:
    """Version of the library that guesses encodings, and of this reader."""
    from importlib.metadata import version as installed

    return f"{installed('charset-normalizer')}+{REVISION}"


def read(job: Job, builder: DocumentBuilder) -> None:
    """Line breaks stay, form feeds begin pages. Raises CorruptFileError when the bytes are no text."""
    pages = [_lines(page) for page in read_text(job, builder).split("\f")]
    while len(pages) > 1 and not any(pages[-1]):
        pages.pop()
    whole = _is_one_line_a_paragraph(pages)
    builder.title = gutenberg_title("\n".join(pages[0][:80]))

    @cache
    def words() -> Counter[str]:
        return vocabulary("\n".join(lines) for lines in pages)

    paragraphs = [_paragraphs(lines, one_line=whole) for lines in pages]
    running = running_paragraphs(paragraphs)
    blocks: list[Block] = []
    goes_on = False
    for lines, page, marked in zip(pages, paragraphs, running, strict=True):
        if goes_on and lines[0]:
            builder.add("\n")
        else:
            builder.end_paragraph()
        if len(pages) > 1:
            builder.page()
        _write(builder, page, marked, blocks, words)
        goes_on = bool(lines[-1])
    for heading in find_headings(blocks):
        builder.heading(heading.title, heading.level, heading.start)


def join_lines(lines: list[str], words: Callable[[], Counter[str]]) -> list[str]:
    """`lines` with words that were broken at a line end made whole; what follows the word starts the next line."""
    joined: list[str] = []
    rest = list(reversed(lines))
    while rest:
        line = rest.pop()
        while rest and line.endswith("-") and len(line) < _LONGEST_LINE:
            following = rest[-1].lstrip()
            before = _WORD_BEFORE_HYPHEN.search(line[-_LONGEST_WORD:])
            after = _WORD.match(following[:_LONGEST_WORD])
            if before is None or after is None:
                break
            token = following.split(None, 1)[0]
            line = line[:-1] + join_hyphenated(before[1], after[0], words(), otherwise="-") + token
            rest[-1] = following[len(token) :].lstrip()
            if rest[-1]:
                break
            rest.pop()
        joined.append(line)
    return joined


def gutenberg_title(head: str) -> str:
    """What the header of a Project Gutenberg text calls the book; empty for other texts."""
    if "project gutenberg" not in head.lower():
        return ""
    match = _GUTENBERG_TITLE.search(head)
    return " ".join(match[1].split()) if match else ""


def _lines(page: str) -> list[str]:
    return [line.rstrip() for line in normalise(page).split("\n")]


def _is_one_line_a_paragraph(pages: list[list[str]]) -> bool:
    """Whether most line ends that are not followed by a blank line end a long line."""
    ends, long = 0, 0
    for lines in pages:
        for line, following in pairwise(lines):
            if line and following:
                ends += 1
                long += len(line) > _LONG_LINE
    return long * 2 > ends


def _paragraphs(lines: list[str], *, one_line: bool) -> list[Paragraph]:
    """Runs of lines between blank lines, each with the number of blank lines before it."""
    found: list[Paragraph] = []
    blanks, inside = 0, False
    for line in lines:
        if not line:
            blanks += 1
            inside = False
        elif inside and not one_line:
            found[-1][0].append(line)
        else:
            found.append(([line], blanks))
            blanks, inside = 0, True
    return found


def _write(
    builder: DocumentBuilder,
    paragraphs: list[Paragraph],
    running: dict[int, MarkKind],
    blocks: list[Block],
    words: Callable[[], Counter[str]],
) -> None:
    for index, (lines, blanks) in enumerate(paragraphs):
        if index:
            builder.end_paragraph()
        joined = join_lines(lines, words)
        span = builder.add("\n".join(joined))
        if index in running:
            builder.mark(Mark(running[index], span.start, span.end))
            continue
        start = span.start + len(joined[0]) - len(joined[0].lstrip())
        blocks.append(Block(tuple(line.strip() for line in joined[:4]), len(joined), len(span), blanks, start))
