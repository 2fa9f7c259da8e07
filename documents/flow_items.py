"""What a `Flow` is made of while a paragraph or a table row is collected, and how that becomes text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lcdoc.documents.text import normalise

# While a paragraph is collected, a hard line break is U+2028 and a space to keep is U+00A0; normalising turns them into
# a newline and a space. So a newline in the source, which is only white space, cannot be mistaken for a break.
BREAK: Final = "\u2028"
_SPACES: Final = re.compile(r" {2,}")
_BREAKS: Final = re.compile(rf" ?{BREAK}[ {BREAK}]*")
_LONGEST_ROW: Final = 4_000
_ROW_OF_PARAGRAPHS: Final = 400


@dataclass(frozen=True, slots=True)
class Anchor:
    """Something outside (a table of contents) points here."""

    key: str


@dataclass(frozen=True, slots=True)
class PageStart:
    """A page begins. A `soft` one counts only if there was text since the last page began.

    `parity` 1 or 0 asks for an odd or even page number; a blank page goes before it where needed.
    """

    label: str
    soft: bool
    parity: int | None


@dataclass(frozen=True, slots=True)
class ParagraphEnd:
    """The paragraph is over."""


@dataclass(frozen=True, slots=True)
class HeadingStart:
    """What follows is the title of a section."""

    level: int


@dataclass(frozen=True, slots=True)
class HeadingEnd:
    """The title is over."""


Mark = Anchor | PageStart
Item = str | Mark | ParagraphEnd | HeadingStart | HeadingEnd


def is_blank(item: Item) -> bool:
    """Whether there is no text in it."""
    return not isinstance(item, str) or item.isspace()


def is_layout(cells: list[list[Item]]) -> bool:
    """Whether a row holds prose that was put into a table for its looks: a heading, or cells of several paragraphs."""
    size, most = 0, 0
    for cell in cells:
        paragraphs, fresh = 0, True
        for item in cell:
            if isinstance(item, HeadingStart):
                return True
            if isinstance(item, ParagraphEnd):
                fresh = True
            elif isinstance(item, str) and not item.isspace():
                size += len(item)
                paragraphs += fresh
                fresh = False
        most = max(most, paragraphs)
    return size > _LONGEST_ROW or (most > 1 and size > _ROW_OF_PARAGRAPHS)


def split_at_marks(run: list[str | Mark]) -> tuple[list[list[Mark]], list[str]]:
    """A paragraph's items as texts, tidied and normalised, each with the marks that stand before it."""
    marks: list[list[Mark]] = [[]]
    pieces: list[list[str]] = [[]]
    for item in run:
        if isinstance(item, str):
            pieces[-1].append(item)
        elif pieces[-1]:
            marks.append([item])
            pieces.append([])
        else:
            marks[-1].append(item)
    texts: list[str] = []
    edge = BREAK
    for piece in pieces:
        text = _BREAKS.sub(_tidy_break, _SPACES.sub(" ", "".join(piece)))
        if edge in (" ", BREAK):
            text = text.lstrip(" " if texts and any(texts) else f" {BREAK}")
        # Breaks on both sides of a mark are one run of breaks, and no run is longer than two.
        before = "".join(texts)
        run_length = len(before) - len(before.rstrip(BREAK)) + len(text) - len(text.lstrip(BREAK))
        text = text[max(0, run_length - 2) :] if before and text.startswith(BREAK) else text
        edge = text[-1:] or edge
        texts.append(text)
    texts[-1] = texts[-1].rstrip(f" \xa0{BREAK}")
    whole = normalise("".join(texts))
    texts = [normalise(text) for text in texts]
    if len(texts) > 1 and "".join(texts) != whole:
        # A mark between a letter and its accent: keep the text right and put the marks in front.
        return [[mark for before in marks for mark in before]], [whole]
    return marks, texts


def _tidy_break(match: re.Match[str]) -> str:
    return BREAK if match.group().count(BREAK) == 1 else BREAK * 2
