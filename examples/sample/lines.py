"""Breaks runs into justified lines, greedily, with hyphenation, as a book's compositor would.

A line keeps its spaces as characters, so that the text of the PDF is the text of the book and not a heap of words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reportlab.pdfbase.pdfmetrics import stringWidth

from sample.book import Runs
from sample.hyphenation import break_points
from sample.typography import printed

# A line is hyphenated only when its spaces would otherwise grow beyond this multiple of their natural width.
_LOOSE = 1.5
_MOST_HYPHENS_IN_SUCCESSION = 2


@dataclass(frozen=True)
class Face:
    """A family of base fonts and a size, in points; `leading` is the distance of two base lines."""

    family: str
    size: float
    leading: float

    def font(self, *, bold: bool, italic: bool) -> str:
        if self.family == "Times":
            return ("Times-Roman", "Times-Italic", "Times-Bold", "Times-BoldItalic")[2 * bold + italic]
        return ("Helvetica", "Helvetica-Oblique", "Helvetica-Bold", "Helvetica-BoldOblique")[2 * bold + italic]


@dataclass(frozen=True)
class Piece:
    """Characters in one font. `rise` lifts them above the base line; `note` is the footnote that they call."""

    text: str
    font: str
    size: float
    rise: float = 0.0
    note: int | None = None

    @property
    def width(self) -> float:
        return float(stringWidth(self.text, self.font, self.size))


@dataclass(frozen=True)
class Line:
    """One line: its pieces, its natural width, and whether its spaces stretch to the measure."""

    pieces: tuple[Piece, ...]
    width: float
    justified: bool
    indent: float = 0.0

    @property
    def spaces(self) -> int:
        return sum(piece.text.count(" ") for piece in self.pieces)

    @property
    def notes(self) -> tuple[int, ...]:
        return tuple(piece.note for piece in self.pieces if piece.note is not None)


Word = tuple[Piece, ...]


def break_lines(
    runs: Runs, face: Face, measure: float, *, indent: float = 0.0, bold: bool = False, justify: bool = True
) -> list[Line]:
    """`runs` as lines of at most `measure` points; the first is indented. The last line is not stretched.

    Where nothing is justified, only a word that is wider than the measure is hyphenated.
    """
    words = list(_words(runs, face, bold))
    lines: list[Line] = []
    current: list[Word] = []
    width = 0.0
    space = float(stringWidth(" ", face.font(bold=bold, italic=False), face.size))
    hyphens = 0
    while words:
        word = words.pop(0)
        room = measure - (0.0 if lines else indent)
        needed = _width(word) + (space if current else 0.0)
        if width + needed <= room:
            current.append(word)
            width += needed
            continue
        stretch = (room - width) / (space * max(len(current) - 1, 1)) + 1
        split = None
        loose = justify and stretch > _LOOSE and hyphens < _MOST_HYPHENS_IN_SUCCESSION
        if loose or not current:
            split = _split(word, room - width - (space if current else 0.0))
        if split:
            current.append(split[0])
            words.insert(0, split[1])
        elif current:
            words.insert(0, word)
        else:
            current.append(word)
        hyphens = hyphens + 1 if split else 0
        lines.append(_line(current, justify, 0.0 if lines else indent, face, bold))
        current, width = [], 0.0
    if current:
        lines.append(_line(current, False, 0.0 if lines else indent, face, bold))
    return lines


def _words(runs: Runs, face: Face, bold: bool) -> Iterator[Word]:
    """The words of `runs`; a word may change its face half-way, and ends in the calls of its footnotes."""
    word: list[Piece] = []
    for run in printed(runs):
        font = face.font(bold=run.bold or bold, italic=run.italic)
        for index, part in enumerate(run.text.split(" ")):
            if index and word:
                yield tuple(word)
                word = []
            if part:
                word.append(Piece(part, font, face.size))
        if run.note is not None:
            roman = face.font(bold=False, italic=False)
            word.append(Piece(str(run.note + 1), roman, face.size * 0.66, face.size * 0.36, run.note))
    if word:
        yield tuple(word)


def _width(word: Word) -> float:
    return sum(piece.width for piece in word)


def _split(word: Word, room: float) -> tuple[Word, Word] | None:
    """The word broken as late as `room` allows, or None."""
    best: tuple[Word, Word] | None = None
    before = 0.0
    for index, piece in enumerate(word):
        if piece.note is not None:
            break
        for point in break_points(piece.text):
            head = piece.text[:point]
            head = head if head.endswith("-") else head + "-"
            if before + replace(piece, text=head).width > room:
                return best
            best = (
                (*word[:index], replace(piece, text=head)),
                (replace(piece, text=piece.text[point:]), *word[index + 1 :]),
            )
        before += piece.width
    return best


def _line(words: list[Word], justify: bool, indent: float, face: Face, bold: bool) -> Line:
    pieces: list[Piece] = []
    for index, word in enumerate(words):
        if index:
            last = pieces[-1]
            if last.note is None:
                pieces[-1] = replace(last, text=last.text + " ")
            else:
                pieces.append(Piece(" ", face.font(bold=bold, italic=False), face.size))
        for piece in word:
            same = pieces and (pieces[-1].font, pieces[-1].size, pieces[-1].note) == (
                piece.font,
                piece.size,
                piece.note,
            )
            if same and piece.note is None:
                pieces[-1] = replace(pieces[-1], text=pieces[-1].text + piece.text)
            else:
                pieces.append(piece)
    return Line(tuple(pieces), sum(piece.width for piece in pieces), justify, indent)
