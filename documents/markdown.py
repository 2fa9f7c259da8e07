"""Markdown, kept as its source: what a user copies from the file is what a quote is checked against.

Only headings are taken from the markup (ATX `## Title` and setext underlines, outside fenced code, comments and front
matter), and the title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.text import normalise
from lcdoc.documents.text_file import read_text

READER: Final = "lcdoc-markdown"
REVISION: Final = 1

_LONGEST_TITLE: Final = 400
_LONGEST_UNDERLINED: Final = 3
_FENCE: Final = re.compile(r"\s*(?:[-*+>]\s+|\d{1,9}[.)]\s+)?(`{3,}|~{3,})(.*)")
_ATX: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE: Final = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH: Final = re.compile(r"\s*(?:>|[-*+]\s|\d{1,9}[.)]\s|\||<|#{1,6}\s|={3,}$|-{3,}$|\*{3,}$|_{3,}$)| {4}|\t")
_FRONT_TITLE: Final = re.compile(r"title\s*[:=]\s*(\S.*)", re.IGNORECASE)
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_EMPHASIS: Final = re.compile(r"(\*\*|__|`+|~~)|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)")
_ATTRIBUTES: Final = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading and where its line starts."""

    title: str
    level: int
    start: int


def version() -> str:
    """Version of this reader; it uses no library."""
    return str(REVISION)


def read(job: Job, builder: DocumentBuilder) -> None:
    """Raises CorruptFileError when the bytes are no text."""
    text = "\n".join(line.rstrip() for line in normalise(read_text(job, builder)).split("\n")).strip("\n")
    builder.add(text)
    headings = list(find_headings(text))
    for heading in headings:
        builder.heading(heading.title, heading.level, heading.start)
    builder.title = front_matter_title(text) or next((h.title for h in headings[:1] if h.level == 1), "")


def find_headings(text: str) -> Iterator[Heading]:
    """The headings of Markdown `text` in order."""
    until = ""
    """What ends the block we are in, whose lines are no Markdown: a fence, or `-->`."""
    paragraph: list[tuple[str, int]] = []
    position = front_matter_end(text)
    for line in text[position:].split("\n"):
        start = position
        position += len(line) + 1
        if until:
            until = "" if _ends_block(line, until) else until
        elif until := _begins_block(line):
            paragraph = []
        elif atx := _ATX.match(line):
            if title := clean_title(_without_closing_marks(line[atx.end() :])):
                yield Heading(title, len(atx[1]), start)
            paragraph = []
        elif paragraph and (underline := _UNDERLINE.match(line)):
            title = clean_title(" ".join(part.strip() for part, _ in paragraph[:_LONGEST_UNDERLINED]))
            if title and len(paragraph) <= _LONGEST_UNDERLINED:
                yield Heading(title, 1 if underline[1][0] == "=" else 2, paragraph[0][1])
            paragraph = []
        elif not line.strip() or (_NO_PARAGRAPH.match(line) and not (paragraph and line[0] in " \t")):
            paragraph = []
        else:
            paragraph.append((line, start))


def _begins_block(line: str) -> str:
    """The fence that opens here, or `-->` when a comment stays open; empty for other lines."""
    opening = _FENCE.match(line)
    if opening and not (opening[1][0] == "`" and "`" in opening[2]):
        return opening[1]
    return "-->" if line.lstrip().startswith("<!--") and "-->" not in line else ""


def _ends_block(line: str, until: str) -> bool:
    if until == "-->":
        return until in line
    closing = _FENCE.match(line)
    return closing is not None and closing[1].startswith(until) and not closing[2].strip()


def clean_title(title: str) -> str:
    """A heading's text without links, emphasis and attributes."""
    title = title.strip()[: 2 * _LONGEST_TITLE]
    title = _LINK.sub(r"\1", _ATTRIBUTES.sub("", title))
    return _EMPHASIS.sub("", title).strip()[:_LONGEST_TITLE]


def front_matter_end(text: str) -> int:
    """Where the YAML or TOML block at the start ends; 0 when there is none."""
    mark = text[:3]
    if mark not in ("---", "+++") or text[3:4] not in ("\n", ""):
        return 0
    for close in {"---", "..."} if mark == "---" else {"+++"}:
        at = text.find(f"\n{close}\n", 3)
        if 0 <= at < 20_000:
            return at + len(close) + 2
    return 0


def front_matter_title(text: str) -> str:
    """What the front matter calls the document."""
    for line in text[: front_matter_end(text)].split("\n"):
        if match := _FRONT_TITLE.match(line):
            return match[1].strip().strip("\"'")
    return ""


def _without_closing_marks(title: str) -> str:
    title = title.rstrip()
    bare = title.rstrip("#")
    return bare if bare != title and (not bare or bare[-1] in " \t") else title
