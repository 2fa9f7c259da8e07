"""HTML files."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.charset import decode_markup
from lcdoc.documents.flow import Flow
from lcdoc.documents.markup import read_markup
from lcdoc.documents.text_file import read_text

READER: Final = "selectolax"
REVISION: Final = 1


def version() -> str:
    """Version of the library, and of this reader."""
    return f"{installed('selectolax')}+{REVISION}"


def read(job: Job, builder: DocumentBuilder) -> None:
    """Text as paragraphs, headings as sections, the `<title>`. Raises CorruptFileError when the bytes are no text."""
    source = read_text(job, builder, decode_markup)
    builder.title = page_title(source)
    for noscript in (False, True):
        flow = Flow(builder)
        if read_markup(source, flow, noscript=noscript):
            builder.warn("elements nested too deep were flattened")
        flow.finish()
        if builder.length:
            if noscript:
                builder.warn("the page shows its text by a script; what it shows without scripts was read")
            return


def page_title(source: str) -> str:
    """What `<title>` says, or nothing."""
    from selectolax.lexbor import LexborHTMLParser

    head_ends = source.lower().find("</title", 0, 1 << 20)
    if head_ends < 0:
        return ""
    title = LexborHTMLParser(source[max(0, head_ends - 20_000) : head_ends] + "</title>").css_first("title")
    return str(title.text(deep=True)) if title is not None else ""
