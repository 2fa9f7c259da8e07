"""PDF: pages, text, labels, outline through pdfium. Attachments, scripts, forms and links are never looked at."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.errors import EmptyDocumentError, LimitError
from lcdoc.documents.pdf_layout import write_pages
from lcdoc.documents.pdf_lines import LineReader, PageLines
from lcdoc.documents.pdf_open import open_pdf
from lcdoc.documents.pdf_sections import read_outline, sections_from_outline, sections_from_type

READER = "pypdfium2"
_REVISION = 1

OCR_REMEDY = "run text recognition first, for example: ocrmypdf in.pdf out.pdf"
_GARBLED = 0.2
_NO_TITLE = ("microsoft word", "untitled", "microsoft powerpoint", "powerpoint presentation", "document", "slide 1")
_FILE_SUFFIXES = (".doc", ".docx", ".pdf", ".indd", ".qxd", ".tex", ".dvi", ".htm", ".html", ".rtf", ".xls", ".xlsx")


def version() -> str:
    """Changes whenever the same bytes may give another text."""
    return f"{metadata.version('pypdfium2')}+{_REVISION}"


def read(job: Job, builder: DocumentBuilder) -> None:
    """Fill `builder` from a PDF. Raises PasswordError, CorruptFileError, LimitError, EmptyDocumentError."""
    with open_pdf(job.data, name=job.name, password=job.password) as pdf:
        if len(pdf) > job.limits.max_pages:
            raise LimitError(
                job.name,
                f"{len(pdf):,} pages, more than the limit of {job.limits.max_pages:,}",
                "raise Limits.max_pages, or split the file",
            )
        pages = _read_pages(pdf, job)
        _warn_about(pages, job, builder)
        lines = write_pages(pages, builder)
        outline = read_outline(pdf)
        if outline:
            sections_from_outline(outline, lines, builder)
        else:
            sections_from_type(lines, builder)
        builder.title = _title(pdf)


def _read_pages(pdf: Any, job: Job) -> list[PageLines]:
    from pypdfium2 import PdfiumError

    reader = LineReader()
    pages: list[PageLines] = []
    total = len(pdf)
    characters = 0
    for index in range(total):
        label = (pdf.get_page_label(index) or "").strip()
        try:
            page = pdf[index]
        except PdfiumError:
            pages.append(PageLines(label, 0.0, [], has_objects=True, readable=False))
            continue
        try:
            text_page = page.get_textpage()
            lines, unmapped = reader.read(text_page)
            text_page.close()
            has_objects = bool(lines) or _has_objects(page)
            pages.append(PageLines(label, page.get_height(), lines, has_objects, unmapped=unmapped))
        except PdfiumError:
            pages.append(PageLines(label, 0.0, [], has_objects=True, readable=False))
        finally:
            page.close()
        characters += sum(len(line.text) for line in pages[-1].lines)
        if characters > job.limits.max_characters:
            raise LimitError(
                job.name,
                f"more than {job.limits.max_characters:,} characters of text",
                "raise Limits.max_characters, or split the file",
            )
        if index % 8 == 7 or index + 1 == total:
            job.progress(index + 1, total)
    return pages


def _has_objects(page: Any) -> bool:
    import pypdfium2.raw as pdfium

    return bool(pdfium.FPDFPage_CountObjects(page.raw) > 0)


def _warn_about(pages: list[PageLines], job: Job, builder: DocumentBuilder) -> None:
    unreadable = [number for number, page in enumerate(pages, 1) if not page.readable]
    if len(unreadable) == len(pages):
        raise EmptyDocumentError(job.name, "none of its pages can be read, the PDF is damaged", "print it to a new PDF")
    if not any(page.lines for page in pages):
        if any(page.has_objects for page in pages):
            raise EmptyDocumentError(job.name, "no page has a text layer (a scan?)", OCR_REMEDY)
        raise EmptyDocumentError(job.name, "all its pages are blank", "check that it is the right file")
    textless = [number for number, page in enumerate(pages, 1) if page.readable and not page.lines and page.has_objects]
    if textless:
        have = "have" if len(textless) > 1 else "has"
        builder.warn(f"{page_ranges(textless)} {have} no text layer and cannot be searched; {OCR_REMEDY}")
    garbled = [number for number, page in enumerate(pages, 1) if page.unmapped > _GARBLED]
    if garbled:
        builder.warn(
            f"fonts on {page_ranges(garbled)} do not say which letters they show, so text there is partly unreadable; "
            "recognise it anew, for example: ocrmypdf --force-ocr in.pdf out.pdf"
        )
    if unreadable:
        builder.warn(f"{page_ranges(unreadable)} cannot be read: the PDF is damaged there")


def page_ranges(numbers: list[int]) -> str:
    """`[3, 4, 5, 9]` -> `pages 3-5, 9`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges[:20])
    more = f" and {len(ranges) - 20} more ranges" if len(ranges) > 20 else ""
    return f"{'page' if len(numbers) == 1 else 'pages'} {shown}{more}"


def _title(pdf: Any) -> str:
    title = str(pdf.get_metadata_value("Title") or "").strip()
    lowered = title.lower()
    letters = sum(character.isalpha() for character in title)
    if letters < max(3, len(title) / 3) or lowered.startswith(_NO_TITLE) or lowered.endswith(_FILE_SUFFIXES):
        return ""
    return title
