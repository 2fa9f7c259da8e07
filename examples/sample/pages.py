"""Puts rows (lines, headings, rows of tables) on pages: columns, footnotes at the foot, no widows and no orphans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sample.lines import Line

PAGE_WIDTH, PAGE_HEIGHT = 432.0, 648.0
TOP, BOTTOM = 60.0, 62.0
INNER, OUTER = 58.0, 50.0
MEASURE = PAGE_WIDTH - INNER - OUTER
GUTTER = 18.0
NOTE_GAP = 12.0


@dataclass(frozen=True)
class Cell:
    """Lines at a horizontal offset from the row's left edge, `measure` points wide."""

    x: float
    measure: float
    lines: tuple[Line, ...]
    leading: float
    right: bool = False


@dataclass(frozen=True)
class Row:
    """What cannot be divided: a line of a paragraph, a heading, a row of a table.

    `height` and `before` (white space above, dropped at the top of a column) are in points. `keep` holds the row on
    the page of the next one. `notes` are the footnotes called in it. `repeat` is set again at the top of each page
    that its table runs on to. `rule` draws a line under the row, `target` is a title whose place the outline needs.
    """

    cells: tuple[Cell, ...]
    height: float
    before: float = 0.0
    keep: bool = False
    notes: tuple[int, ...] = ()
    repeat: tuple[Row, ...] = ()
    rule: float = 0.0
    target: str = ""
    link: str = ""


@dataclass(frozen=True)
class Placed:
    """A row with the coordinates of its upper left corner, from the page's lower left."""

    row: Row
    x: float
    y: float


@dataclass
class Page:
    """A composed page. `opening` is true for the first of a chapter, which carries no running header."""

    chapter: str
    front: bool
    opening: bool
    inner_left: bool
    rows: list[Placed] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)

    @property
    def left(self) -> float:
        return INNER if self.inner_left else OUTER

    @property
    def notes_height(self) -> float:
        return sum(row.height for row in self.notes) + NOTE_GAP if self.notes else 0.0


class Composer:
    """Fills the pages of one chapter, from `first_number` on. Odd pages are right-hand pages."""

    def __init__(self, chapter: str, *, front: bool, first_number: int, notes: Sequence[Sequence[Row]]) -> None:
        self.pages: list[Page] = []
        self._chapter, self._front, self._first = chapter, front, first_number
        self._notes = notes
        self._columns, self._column = 1, 0
        self._column_top = self._y = PAGE_HEIGHT - TOP
        self._new_page()

    def _new_page(self) -> None:
        odd = (self._first + len(self.pages)) % 2 == 1
        self.pages.append(Page(self._chapter, self._front, not self.pages, odd))
        self._column = 0
        self._column_top = self._y = PAGE_HEIGHT - TOP

    def columns(self, count: int) -> None:
        """Go on in `count` columns, below what stands on the page already."""
        self._columns, self._column = count, 0
        self._y -= 10.0
        self._column_top = self._y

    @staticmethod
    def column_measure(count: int) -> float:
        return (MEASURE - (count - 1) * GUTTER) / count

    def flow(self, rows: Sequence[Row]) -> None:
        """Set `rows` one after another; those that keep together move to the next column or page together."""
        start = 0
        while start < len(rows):
            end = start
            while rows[end].keep and end + 1 < len(rows):
                end += 1
            self._place(rows[start : end + 1])
            start = end + 1

    def _place(self, group: Sequence[Row]) -> None:
        if not self._fits(group):
            if self._columns > 1 and any(row.notes for row in group):
                raise ValueError(f"{self._chapter}: footnotes are not set in columns")
            self._next_column()
            group = (*group[0].repeat, *group)
            if not self._fits(group):
                raise ValueError(f"{self._chapter}: rows that keep together are higher than a page")
        for row in group:
            self._y -= 0.0 if self._y == self._column_top else row.before
            x = self.pages[-1].left + self._column * (self.column_measure(self._columns) + GUTTER)
            self.pages[-1].rows.append(Placed(row, x, self._y))
            self._y -= row.height
            for note in row.notes:
                self.pages[-1].notes.extend(self._notes[note])

    def _fits(self, group: Sequence[Row]) -> bool:
        height = sum(row.height + row.before for row in group)
        if self._y == self._column_top:
            height -= group[0].before
        called = [row for owner in group for note in owner.notes for row in self._notes[note]]
        page = self.pages[-1]
        gap = NOTE_GAP if called and not page.notes else 0.0
        room = self._y - BOTTOM - page.notes_height - gap - sum(row.height for row in called)
        return height <= room + 0.01

    def _next_column(self) -> None:
        if self._column + 1 < self._columns:
            self._column += 1
            self._y = self._column_top
        else:
            self._new_page()


def paragraph_rows(lines: Sequence[Line], cell: Cell, *, before: float = 0.0) -> list[Row]:
    """A row for each line, kept so that no single first or last line stands alone on a page."""
    rows = [
        Row((replace(cell, lines=(line,)),), cell.leading, before if index == 0 else 0.0, notes=line.notes)
        for index, line in enumerate(lines)
    ]
    if len(rows) > 1:
        rows[0] = replace(rows[0], keep=True)
        rows[-2] = replace(rows[-2], keep=True)
    return rows
