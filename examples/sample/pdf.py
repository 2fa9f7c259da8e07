"""The handbook as PDF: outline of two levels, page labels, running headers, footnotes, one chapter in two columns."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from reportlab import rl_config
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from sample.book import EDITION, IMPRINT, PUBLISHER, SUBTITLE, TITLE, Block, Book, Chapter, Columns, Run
from sample.lines import Face, Line, break_lines
from sample.pages import BOTTOM, MEASURE, NOTE_GAP, PAGE_HEIGHT, PAGE_WIDTH, Cell, Composer, Page, Placed, Row
from sample.pdf_rows import BODY, SECTION, block_rows, chapter_title, note_rows

_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv", "xvi")
_RUNNING = Face("Helvetica", 8.0, 10.0)
_CONTENTS = "Contents"


def make_pdf(book: Book) -> bytes:
    """The PDF. The contents are set twice: the second time with the page numbers that the first brought to light."""
    labels: dict[str, str] = {}
    pages = _compose(book, labels)
    labels = _labels_by_title(pages)
    pages = _compose(book, labels)
    if _labels_by_title(pages) != labels:
        raise ValueError("the table of contents changed its own length")
    return _draw(book, pages)


def _compose(book: Book, labels: Mapping[str, str]) -> list[Page]:
    front = _title_pages()
    front += _contents(book, labels, len(front) + 1)
    body: list[Page] = []
    for chapter in book.chapters:
        part = front if chapter.front else body
        part += _chapter(chapter, len(part) + 1)
    return front + body


def _chapter(chapter: Chapter, first_number: int) -> list[Page]:
    composer = Composer(chapter.title, front=chapter.front, first_number=first_number, notes=note_rows(chapter.notes))
    columns = 1
    rows = chapter_title(chapter.title)
    before: Block | None = None
    for block in chapter.blocks:
        if isinstance(block, Columns):
            composer.flow(rows)
            rows = []
            columns = block.count
            composer.columns(columns)
        else:
            rows += block_rows(block, before, composer.column_measure(columns), narrow=columns > 1)
        before = block
    composer.flow(rows)
    return composer.pages


def _title_pages() -> list[Page]:
    title = Composer(TITLE, front=True, first_number=1, notes=())
    rows = [Row((), 130.0)]
    for text, face, bold, gap in (
        (TITLE, Face("Helvetica", 27.0, 33.0), True, 24.0),
        (SUBTITLE, Face("Times", 13.0, 17.0), False, 190.0),
        (PUBLISHER, SECTION, False, 0.0),
    ):
        lines = tuple(break_lines((Run(text),), face, MEASURE * 0.86, bold=bold, justify=False))
        rows.append(Row((Cell(0.0, MEASURE, lines, face.leading),), face.leading * len(lines) + gap))
    title.flow(rows)
    imprint = Composer(TITLE, front=True, first_number=2, notes=())
    rows = [Row((), 400.0)]
    for text in (EDITION, *IMPRINT):
        lines = tuple(break_lines((Run(text),), BODY, MEASURE, justify=False))
        rows.append(Row((Cell(0.0, MEASURE, lines, BODY.leading),), BODY.leading * len(lines) + 6.0))
    imprint.flow(rows)
    return [*title.pages, *imprint.pages]


def _contents(book: Book, labels: Mapping[str, str], first_number: int) -> list[Page]:
    composer = Composer(_CONTENTS, front=True, first_number=first_number, notes=())
    rows = chapter_title(_CONTENTS)
    for chapter in book.chapters:
        rows.append(_contents_row(chapter.title, labels, chapter=True, keep=bool(chapter.sections)))
        rows += [_contents_row(section, labels, chapter=False, keep=False) for section in chapter.sections]
    composer.flow(rows)
    return composer.pages


def _contents_row(title: str, labels: Mapping[str, str], *, chapter: bool, keep: bool) -> Row:
    label = tuple(break_lines((Run(labels.get(title, "0")),), BODY, 40.0, bold=chapter, justify=False))
    indent = 0.0 if chapter else 14.0
    line = break_lines((Run(title),), BODY, MEASURE - 50.0, bold=chapter, justify=False)[0]
    if not chapter:
        leader = float(stringWidth(" .", "Times-Roman", BODY.size))
        dots = int((MEASURE - indent - line.width - label[0].width - 6.0) / leader)
        line = break_lines((Run(title + " ." * dots),), BODY, MEASURE, justify=False)[0]
    cells = (
        Cell(indent, MEASURE - indent, (line,), BODY.leading),
        Cell(0.0, MEASURE, label, BODY.leading, right=True),
    )
    return Row(cells, 13.0, before=5.0 if chapter else 0.0, keep=keep, link=title)


def _labels(pages: list[Page]) -> list[str]:
    front = sum(page.front for page in pages)
    return [_ROMAN[index + 1] if index < front else str(index - front + 1) for index in range(len(pages))]


def _labels_by_title(pages: list[Page]) -> dict[str, str]:
    return {
        placed.row.target: label
        for page, label in zip(pages, _labels(pages), strict=True)
        for placed in page.rows
        if placed.row.target
    }


def _draw(book: Book, pages: list[Page]) -> bytes:
    rl_config.useA85 = 0  # plain compressed streams: a fifth smaller than ASCII ones
    out = BytesIO()
    canvas = Canvas(out, pagesize=(PAGE_WIDTH, PAGE_HEIGHT), pageCompression=1, invariant=1, lang="en-GB")
    canvas.setTitle(TITLE)
    canvas.setAuthor(PUBLISHER)
    canvas.setSubject(SUBTITLE)
    canvas.setKeywords("sample document, invented")
    canvas.setCreator("examples/make_sample.py")
    front = sum(page.front for page in pages)
    canvas.addPageLabel(0, style="ROMAN_LOWER", start=1)
    canvas.addPageLabel(front, style="ARABIC", start=1)
    chapters = {_CONTENTS, *(chapter.title for chapter in book.chapters)}
    for page, label in zip(pages, _labels(pages), strict=True):
        _draw_page(canvas, page, label, chapters)
        canvas.showPage()
    canvas.showOutline()
    canvas.save()
    return out.getvalue()


def _draw_page(canvas: Any, page: Page, label: str, chapters: set[str]) -> None:
    for placed in page.rows:
        if placed.row.target:
            _outline(canvas, placed, level=0 if placed.row.target in chapters else 1)
        if placed.row.link:
            box = (placed.x, placed.y - placed.row.height, placed.x + MEASURE, placed.y)
            canvas.linkRect("", placed.row.link, box, relative=0, thickness=0)
        _draw_row(canvas, placed)
    if page.notes:
        y = BOTTOM + page.notes_height - NOTE_GAP
        canvas.setLineWidth(0.5)
        canvas.line(page.left, y + 5.0, page.left + 70.0, y + 5.0)
        for row in page.notes:
            _draw_row(canvas, Placed(row, page.left, y))
            y -= row.height
    if page.chapter != TITLE:
        _draw_running(canvas, page, label)


def _draw_running(canvas: Any, page: Page, label: str) -> None:
    """The running header, with the chapter on right-hand pages and the book on left-hand ones, and the footer."""
    font = _RUNNING.font(bold=False, italic=True)
    right_edge = page.left + MEASURE
    canvas.setFont(font, _RUNNING.size)
    if not page.opening:
        if page.inner_left:
            canvas.drawRightString(right_edge, PAGE_HEIGHT - 42.0, page.chapter)
        else:
            canvas.drawString(page.left, PAGE_HEIGHT - 42.0, TITLE)
    bold = _RUNNING.font(bold=True, italic=False)
    if page.inner_left:
        canvas.drawString(page.left, 36.0, EDITION)
        canvas.setFont(bold, 9.0)
        canvas.drawRightString(right_edge, 36.0, label)
    else:
        canvas.drawRightString(right_edge, 36.0, EDITION)
        canvas.setFont(bold, 9.0)
        canvas.drawString(page.left, 36.0, label)


def _outline(canvas: Any, placed: Placed, level: int) -> None:
    title = placed.row.target
    canvas.bookmarkPage(title, fit="XYZ", left=0, top=placed.y + 4.0, zoom=0)
    canvas.addOutlineEntry(title, title, level=level, closed=level == 0)


def _draw_row(canvas: Any, placed: Placed) -> None:
    row = placed.row
    for cell in row.cells:
        y = placed.y - cell.leading * 0.78
        for line in cell.lines:
            shift = cell.measure - line.width if cell.right else line.indent
            _draw_line(canvas, line, placed.x + cell.x + shift, y, cell.measure - line.indent)
            y -= cell.leading
    if row.rule:
        canvas.setLineWidth(row.rule)
        bottom = placed.y - row.height + 1.0
        canvas.line(placed.x, bottom, placed.x + MEASURE, bottom)


def _draw_line(canvas: Any, line: Line, x: float, y: float, measure: float) -> None:
    text = canvas.beginText(x, y)
    # The word space outlives the text object, so it is set for every line.
    text.setWordSpace((measure - line.width) / line.spaces if line.justified and line.spaces else 0.0)
    for piece in line.pieces:
        text.setFont(piece.font, piece.size)
        if piece.rise:
            text.setRise(piece.rise)
        text.textOut(piece.text)
        if piece.rise:
            text.setRise(0)
    canvas.drawText(text)
