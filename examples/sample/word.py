"""The handbook as DOCX: heading styles, real lists, tables and footnotes, page numbers roman, then arabic."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from docx import Document
from docx.enum.section import WD_SECTION
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Mm, Pt

from sample.archive import pack, unpack
from sample.book import (
    DATE,
    IMPRINT,
    PUBLISHER,
    SUBTITLE,
    TITLE,
    Block,
    Book,
    Chapter,
    Columns,
    Heading,
    Listing,
    Paragraph,
    Runs,
    Table,
)
from sample.typography import curly, printed
from sample.word_notes import Footnotes


def make_docx(book: Book) -> bytes:
    """The DOCX, repacked so that the same book gives the same bytes."""
    writer = _Writer()
    writer.title_page()
    body = False
    for chapter in book.chapters:
        if not chapter.front and not body:
            writer.new_section(WD_SECTION.NEW_PAGE, number_format="decimal")
            body = True
        writer.chapter(chapter)
    return writer.save()


class _Writer:
    """A python-docx document in the making."""

    def __init__(self) -> None:
        self._document = Document()
        self._notes = Footnotes(self._document)
        properties = self._document.core_properties
        properties.title, properties.author, properties.subject = TITLE, PUBLISHER, SUBTITLE
        properties.comments, properties.keywords, properties.language = "", "sample document, invented", "en-GB"
        properties.created = properties.modified = datetime.fromisoformat(DATE).replace(hour=12, tzinfo=UTC)
        properties.last_modified_by, properties.revision = PUBLISHER, 1
        normal = self._document.styles["Normal"]
        normal.font.name, normal.font.size = "Times New Roman", Pt(11)
        section = self._document.sections[0]
        section.page_width, section.page_height = Mm(148), Mm(210)
        section.left_margin = section.right_margin = Mm(20)
        section.top_margin = section.bottom_margin = Mm(22)
        section.header.paragraphs[0].text = TITLE
        _page_field(section.footer.paragraphs[0])
        _page_numbers(section, "lowerRoman")

    def title_page(self) -> None:
        self._document.add_paragraph(TITLE, style="Title")
        self._document.add_paragraph(SUBTITLE, style="Subtitle")
        for line in (PUBLISHER, *IMPRINT):
            self._document.add_paragraph(line)

    def new_section(self, kind: WD_SECTION, *, number_format: str = "", columns: int = 1) -> None:
        """What follows has its own page numbering (where `number_format` is given) or number of columns."""
        section = self._document.add_section(kind)
        if number_format:
            _page_numbers(section, number_format)
        else:
            for numbers in section._sectPr.findall(qn("w:pgNumType")):
                numbers.attrib.pop(qn("w:start"), None)
        old = section._sectPr.find(qn("w:cols"))
        if old is not None:
            old.set(qn("w:num"), str(columns))

    def chapter(self, chapter: Chapter) -> None:
        self._document.add_heading(curly(chapter.title), level=1).paragraph_format.page_break_before = True
        columns = False
        for block in chapter.blocks:
            if isinstance(block, Columns):
                self.new_section(WD_SECTION.CONTINUOUS, columns=block.count)
                columns = True
            else:
                self._block(chapter, block)
        if columns:
            self.new_section(WD_SECTION.CONTINUOUS)

    def _block(self, chapter: Chapter, block: Block) -> None:
        if isinstance(block, Heading):
            self._document.add_heading(curly(block.title), level=2)
        elif isinstance(block, Paragraph):
            self._runs(chapter, self._document.add_paragraph(), block.runs)
        elif isinstance(block, Listing):
            numbering = self._restarted_numbering() if block.ordered else None
            for item in block.items:
                style = "List Number" if block.ordered else "List Bullet"
                paragraph = self._document.add_paragraph(style=style)
                if numbering is not None:
                    properties = paragraph._p.get_or_add_pPr().get_or_add_numPr()
                    properties.get_or_add_ilvl().val = 0
                    properties.get_or_add_numId().val = numbering
                self._runs(chapter, paragraph, item)
        elif isinstance(block, Table):
            self._table(chapter, block)

    def _restarted_numbering(self) -> int:
        """A numbering of its own, from 1, for one ordered list: `List Number` alone would go on from the last list."""
        style = self._document.styles["List Number"].element
        base = style.pPr.numPr.numId.val
        numbering = self._document.part.numbering_part.element
        fresh = numbering.add_num(numbering.num_having_numId(base).abstractNumId.val)
        fresh.add_lvlOverride(ilvl=0).add_startOverride(1)
        return int(fresh.numId)

    def _table(self, chapter: Chapter, block: Table) -> None:
        if block.caption:
            self._document.add_paragraph(f"Table {block.number}. {curly(block.caption)}", style="Caption")
        table = self._document.add_table(rows=0, cols=len(block.header), style="Table Grid")
        for index, cells in enumerate((block.header, *block.rows)):
            row = table.add_row()
            if index == 0:
                row._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))
            for cell, runs in zip(row.cells, cells, strict=True):
                self._runs(chapter, cell.paragraphs[0], runs, bold=index == 0)
        self._document.add_paragraph()

    def _runs(self, chapter: Chapter, paragraph: Any, runs: Runs, *, bold: bool = False) -> None:
        for run in printed(runs):
            if run.text:
                written = paragraph.add_run(run.text)
                if run.bold or bold:
                    written.bold = True
                if run.italic:
                    written.italic = True
            if run.note is not None:
                note = printed(chapter.notes[run.note])
                self._notes.call(paragraph, [(part.text, part.bold, part.italic) for part in note])

    def save(self) -> bytes:
        self._notes.attach()
        out = BytesIO()
        self._document.save(out)
        return pack(unpack(out.getvalue()))


def _page_field(paragraph: Any) -> None:
    """A PAGE field: begin, instruction, separator, a placeholder, end."""
    for kind in ("begin", None, "separate", "1", "end"):
        run = paragraph.add_run("1" if kind == "1" else "")
        if kind is None:
            instruction = OxmlElement("w:instrText")
            instruction.text = "PAGE"
            run._r.append(instruction)
        elif kind != "1":
            character = OxmlElement("w:fldChar")
            character.set(qn("w:fldCharType"), kind)
            run._r.append(character)


def _page_numbers(section: Any, number_format: str) -> None:
    properties = section._sectPr
    for old in properties.findall(qn("w:pgNumType")):
        properties.remove(old)
    numbers = OxmlElement("w:pgNumType")
    numbers.set(qn("w:fmt"), number_format)
    numbers.set(qn("w:start"), "1")
    # The schema puts pgNumType in front of cols.
    properties.find(qn("w:cols")).addprevious(numbers)
