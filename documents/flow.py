"""From a stream of inline text and block boundaries to the paragraphs of a document.

HTML, EPUB and DOCX all say the same few things: text, a line break, a paragraph ends, a heading begins, here is a
page break, here is a cell. `Flow` takes these in order and fills a `DocumentBuilder`, so that every format comes out
alike: white space collapsed, one `\\n` for a line break, `\\n\\n` between paragraphs, table rows as lines with ` | `
between cells, and pages, headings and anchors at exact offsets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from lcdoc.documents.builder import DocumentBuilder
from lcdoc.documents.flow_items import (
    BREAK,
    Anchor,
    HeadingEnd,
    HeadingStart,
    Item,
    Mark,
    PageStart,
    ParagraphEnd,
    is_blank,
    is_layout,
    split_at_marks,
)
from lcdoc.documents.text import normalise

_KEPT: Final = str.maketrans({"\n": BREAK, " ": "\xa0", "\t": "\xa0" * 4})
_WHITE: Final = re.compile(r"[ \t\n]+")
_LONGEST_TITLE: Final = 400


@dataclass
class _Heading:
    level: int
    start: int | None = None
    title: list[str] = field(default_factory=list)


@dataclass
class _Table:
    cells: list[list[Item]] = field(default_factory=list)
    released: bool = False
    """The row at hand turned out to be layout: its cells go straight into the text, as paragraphs."""


class Flow:
    """Collects inline text and writes it to the builder a paragraph at a time.

    `front_label` names the page that holds the text before the first page break; empty means that it is page 1.
    """

    def __init__(self, builder: DocumentBuilder, *, front_label: str = "", record_headings: bool = True) -> None:
        self.anchors: dict[str, int] = {}
        """Where each anchor stands in the text; complete after `finish`."""
        self._builder = builder
        self._front_label = front_label
        self._record_headings = record_headings
        self._run: list[str | Mark] = []
        self._heading: _Heading | None = None
        self._tables: list[_Table] = []
        self._marker = ""
        self._preformatted = 0
        self._pages = 0
        self._page_start: int | None = None
        self._last = ""

    @property
    def last_character(self) -> str:
        """The character before here in this paragraph, or nothing."""
        return self._last

    def text(self, text: str, *, keep: bool = False) -> None:
        """Inline text. White space collapses, except between `preformatted` calls and where `keep` says so."""
        text = normalise(text)
        text = text.translate(_KEPT) if keep or self._preformatted else _WHITE.sub(" ", text)
        if not text:
            return
        if self._marker and not text.isspace():
            marker, self._marker = self._marker, ""
            self._put(marker)
        self._last = text[-1]
        self._put(text)

    def line_break(self) -> None:
        """A line ends inside the paragraph. Two in a row end the paragraph."""
        self._last = ""
        self._put(BREAK)

    def paragraph(self) -> None:
        """The paragraph ends here, if there is one."""
        self._last = ""
        self._put(ParagraphEnd())

    def item(self, marker: str, *, own_paragraph: bool = False) -> None:
        """A list item begins: `marker` stands before the next text, on a line of its own."""
        if own_paragraph:
            self.paragraph()
        else:
            self.line_break()
        self._marker = marker

    def end_items(self) -> None:
        """The list is over; a marker that got no text is dropped."""
        self._marker = ""
        self.paragraph()

    def preformatted(self, begins: bool) -> None:
        """From here spaces and line ends are kept (True), or no longer (False). Calls nest."""
        self.paragraph()
        self._preformatted = max(0, self._preformatted + (1 if begins else -1))

    def heading(self, level: int) -> None:
        """All text until `end_heading` is the title of a section that begins here."""
        self._put(HeadingStart(level))

    def end_heading(self) -> None:
        self._put(HeadingEnd())

    def anchor(self, key: str) -> None:
        """Remember where we are under `key`: the offset of the next character of text."""
        self._put(Anchor(key))

    def page(self, label: str = "", *, soft: bool = False, parity: int | None = None) -> None:
        """A page begins at the next character of text, which may be in the middle of a word.

        A `soft` break right after another is the same break. `parity` 1 or 0 is a break to the next odd or even page.
        """
        self._put(PageStart(label, soft, parity))

    def table(self) -> None:
        """A table begins. One inside a cell makes the rows around it layout, not data."""
        self.paragraph()
        self._release()
        self._tables.append(_Table())

    def row(self) -> None:
        if self._tables:
            self._end_row(self._tables[-1])

    def cell(self) -> None:
        """The next cell of the row begins; the one before is over."""
        self._marker, self._last = "", ""
        if not self._tables:
            self.paragraph()
        elif self._tables[-1].released:
            self._apply(ParagraphEnd())
        else:
            self._tables[-1].cells.append([])

    def end_table(self) -> None:
        if self._tables:
            self._end_row(self._tables[-1])
            self._tables.pop()
            self.paragraph()

    def finish(self) -> None:
        """Write what is left, and place the marks after the last text at its end."""
        while self._tables:
            self.end_table()
        self._apply(HeadingEnd())
        self._flush()
        marks, self._run = [item for item in self._run if not isinstance(item, str)], []
        for mark in marks:
            self._place(mark)

    def _put(self, item: Item) -> None:
        if self._tables and self._tables[-1].cells and not self._tables[-1].released:
            self._tables[-1].cells[-1].append(item)
        else:
            self._apply(item)

    def _apply(self, item: Item) -> None:
        match item:
            case ParagraphEnd():
                self._flush()
            case HeadingStart(level):
                self._apply(HeadingEnd())
                self._heading = _Heading(level)
            case HeadingEnd():
                self._flush()
                self._end_heading()
            case _:
                self._run.append(item)

    def _end_heading(self) -> None:
        heading, self._heading = self._heading, None
        if heading is None or heading.start is None or not self._record_headings:
            return
        title = " ".join(heading.title)
        # A heading that was never closed swallows what follows; that is text, not a title.
        if len(title) <= _LONGEST_TITLE:
            self._builder.heading(title, heading.level, heading.start)

    def _flush(self) -> None:
        """Write the paragraph collected so far. Marks behind its last text wait for the next paragraph."""
        run = self._run
        last = len(run) - 1
        while last >= 0 and is_blank(run[last]):
            last -= 1
        self._run = [item for item in run[last + 1 :] if not isinstance(item, str)]
        if last < 0:
            return
        marks, texts = split_at_marks(run[: last + 1])
        self._builder.end_paragraph()
        start = self._builder.length
        for before, text in zip(marks, texts, strict=True):
            for mark in before:
                self._place(mark)
            self._builder.add(text)
        if self._heading is not None:
            if self._heading.start is None:
                self._heading.start = start
            self._heading.title.append("".join(texts))

    def _place(self, mark: Mark) -> None:
        here = self._builder.length
        if isinstance(mark, Anchor):
            self.anchors.setdefault(mark.key, here)
            return
        if mark.soft and here <= (self._page_start or 0):
            return
        if self._page_start is None and here:
            self._new_page(self._front_label)
        if mark.parity is not None and (self._pages + 1) % 2 != mark.parity:
            self._new_page("")
        self._new_page(mark.label)
        self._page_start = here

    def _new_page(self, label: str) -> None:
        self._builder.page(label)
        self._pages += 1

    def _release(self) -> None:
        """Write the cells of the row at hand as paragraphs, and let the rest of the row follow them directly."""
        if not self._tables or self._tables[-1].released:
            return
        table = self._tables[-1]
        table.released = True
        self._apply(ParagraphEnd())
        cells, table.cells = table.cells, []
        for cell in cells:
            for item in cell:
                self._apply(item)
            self._apply(ParagraphEnd())

    def _end_row(self, table: _Table) -> None:
        self._marker, self._last = "", ""
        if table.released:
            table.released = False
            self._apply(ParagraphEnd())
            return
        if is_layout(table.cells):
            self._release()
            table.released = False
            self._apply(ParagraphEnd())
            return
        cells, table.cells = table.cells, []
        while cells and all(is_blank(item) for item in cells[-1]):
            # Only marks can be lost with an empty cell; they belong to the next text.
            self._run.extend(item for item in cells.pop() if isinstance(item, Anchor | PageStart))
        if not cells:
            return
        if any(isinstance(item, str) for item in self._run):
            self._run.append(BREAK)
        for index, cell in enumerate(cells):
            if index:
                self._run.append(" | ")
            for item in cell:
                if isinstance(item, str):
                    self._run.append(item.replace(BREAK, " "))
                elif isinstance(item, Anchor | PageStart):
                    self._run.append(item)
                else:
                    self._run.append(" ")
