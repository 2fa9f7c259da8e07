"""Turns the blocks of a chapter into rows: the book's style in print is in this file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sample.book import Block, Heading, Listing, Paragraph, Run, Runs, Table, plain
from sample.lines import Face, Line, break_lines
from sample.pages import MEASURE, Cell, Row, paragraph_rows

BODY = Face("Times", 10.5, 13.4)
NARROW = Face("Times", 9.4, 11.6)
NOTE = Face("Times", 8.4, 10.2)
TABLE = Face("Times", 9.2, 11.2)
CAPTION = Face("Helvetica", 8.4, 11.0)
SECTION = Face("Helvetica", 11.5, 15.0)
CHAPTER = Face("Helvetica", 19.0, 24.0)
_INDENT = 12.0
_ITEM_INDENT = 16.0
_CELL_GAP = 9.0
_NUMERIC = re.compile(r"[-+]?[\d,.]+( ?%)?|none|free|\d\d:\d\d")
# A table of at most this many rows stays on one page.
_WHOLE_TABLE = 9


def note_rows(notes: Sequence[Runs]) -> list[list[Row]]:
    """The rows of each footnote, its number in front."""
    rows: list[list[Row]] = []
    for index, note in enumerate(notes):
        lines = break_lines((Run(f"{index + 1} "), *note), NOTE, MEASURE)
        rows.append([Row((Cell(0.0, MEASURE, (line,), NOTE.leading),), NOTE.leading) for line in lines])
    return rows


def chapter_title(title: str) -> list[Row]:
    """The opening of a chapter."""
    cell = Cell(0.0, MEASURE, tuple(_title_lines(title, CHAPTER)), CHAPTER.leading)
    height = CHAPTER.leading * len(cell.lines)
    return [Row((), 34.0, keep=True), Row((cell,), height + 16.0, keep=True, target=title)]


def block_rows(block: Block, before: Block | None, measure: float, *, narrow: bool) -> list[Row]:
    """The rows of one block, which follows the block `before` in a column `measure` points wide."""
    face = NARROW if narrow else BODY
    if isinstance(block, Heading):
        cell = Cell(0.0, measure, tuple(_title_lines(block.title, SECTION, measure)), SECTION.leading)
        height = SECTION.leading * len(cell.lines) + 3.0
        return [Row((cell,), height, before=12.0, keep=True, target=block.title)]
    if isinstance(block, Paragraph):
        cell = Cell(0.0, measure, (), face.leading)
        if narrow:
            return paragraph_rows(break_lines(block.runs, face, measure), cell, before=4.0)
        indent = _INDENT if isinstance(before, Paragraph) else 0.0
        above = 0.0 if before is None or isinstance(before, Paragraph | Heading) else 8.0
        return paragraph_rows(break_lines(block.runs, face, measure, indent=indent), cell, before=above)
    if isinstance(block, Listing):
        return [row for index, item in enumerate(block.items) for row in _item_rows(block, index, item, measure)]
    if isinstance(block, Table):
        return _table_rows(block, measure)
    return []


def _title_lines(title: str, face: Face, measure: float = MEASURE) -> list[Line]:
    return break_lines((Run(title),), face, measure, bold=True, justify=False)


def _item_rows(block: Listing, index: int, item: Runs, measure: float) -> list[Row]:
    sign = f"{index + 1}." if block.ordered else "\u2022"
    lines = break_lines(item, BODY, measure - _ITEM_INDENT)
    rows = paragraph_rows(
        lines, Cell(_ITEM_INDENT, measure - _ITEM_INDENT, (), BODY.leading), before=6.0 if index == 0 else 2.0
    )
    label = Cell(0.0, _ITEM_INDENT, tuple(break_lines((Run(sign),), BODY, _ITEM_INDENT)), BODY.leading)
    first = rows[0]
    rows[0] = Row((label, *first.cells), first.height, first.before, first.keep, first.notes)
    return rows


def _table_rows(table: Table, measure: float) -> list[Row]:
    widths = _column_widths(table, measure)
    right = [all(_NUMERIC.fullmatch(plain(row[column])) for row in table.rows) for column in range(len(widths))]
    header = _table_row(table.header, widths, right, bold=True, keep=True, rule=0.8)
    whole = len(table.rows) <= _WHOLE_TABLE
    rows: list[Row] = []
    if table.caption:
        caption = (Run(f"Table {table.number}. ", bold=True), Run(table.caption))
        lines = tuple(break_lines(caption, CAPTION, measure, justify=False))
        rows.append(Row((Cell(0.0, measure, lines, CAPTION.leading),), 11.0 * len(lines) + 3.0, before=10.0, keep=True))
    rows.append(header)
    last = len(table.rows) - 1
    for index, cells in enumerate(table.rows):
        keep = index < last and (whole or index in {0, last - 1})
        rule = 0.8 if index == last else 0.0
        rows.append(_table_row(cells, widths, right, bold=False, keep=keep, rule=rule, repeat=(header,)))
    rows.append(Row((), 6.0))
    return rows


def _table_row(
    cells: Sequence[Runs],
    widths: Sequence[float],
    right: Sequence[bool],
    *,
    bold: bool,
    keep: bool,
    rule: float,
    repeat: tuple[Row, ...] = (),
) -> Row:
    done: list[Cell] = []
    x = 0.0
    for runs, width, flush in zip(cells, widths, right, strict=True):
        lines = tuple(break_lines(runs, TABLE, width, bold=bold, justify=False))
        done.append(Cell(x, width, lines, TABLE.leading, flush))
        x += width + _CELL_GAP
    height = TABLE.leading * max(len(cell.lines) for cell in done) + 3.0
    notes = tuple(note for cell in done for line in cell.lines for note in line.notes)
    return Row(tuple(done), height, keep=keep, notes=notes, repeat=repeat, rule=rule)


def _column_widths(table: Table, measure: float) -> list[float]:
    """Widths in points: what each column needs on one line or, if that is too much, shares between need and minimum."""
    need: list[float] = []
    least: list[float] = []
    for column in range(len(table.header)):
        cells = [(table.header[column], True), *((row[column], False) for row in table.rows)]
        lines = [break_lines(runs, TABLE, 10_000.0, bold=bold, justify=False) for runs, bold in cells]
        need.append(max(line[0].width for line in lines if line) + 0.5)
        words = [
            break_lines((Run(word),), TABLE, 10_000.0, bold=bold, justify=False)[0].width
            for runs, bold in cells
            for word in plain(runs).split()
        ]
        least.append(max(words) + 4.0)
    room = measure - _CELL_GAP * (len(need) - 1)
    if sum(need) <= room:
        spare = (room - sum(need)) / len(need)
        return [width + spare for width in need]
    least = [min(pair) for pair in zip(least, need, strict=True)]
    share = (room - sum(least)) / (sum(need) - sum(least))
    return [low + share * (high - low) for low, high in zip(least, need, strict=True)]
