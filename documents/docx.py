"""Word documents (.docx): Office Open XML, transitional and strict.

The text in reading order with headings, lists with their numbers, tables as lines, text boxes after the paragraph they
hang on, and foot- and endnotes as paragraphs `[1] ...` after the paragraph that refers to them. Headers and footers are
not text of the document. Pages are those the writing program recorded when it last laid the document out.
"""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from typing import Any, Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.docx_numbering import Numbering
from lcdoc.documents.docx_paragraph import Emission
from lcdoc.documents.docx_sections import SectionTypes
from lcdoc.documents.docx_story import Story
from lcdoc.documents.docx_styles import Styles
from lcdoc.documents.errors import CorruptFileError
from lcdoc.documents.flow import Flow
from lcdoc.documents.unzip import Archive, resolve
from lcdoc.documents.xml_parts import MAX_PART_BYTES, attribute, descendants, hostile, parse_part, text_of

READER: Final = "defusedxml"
REVISION: Final = 1

_STEP: Final = 1 << 20
_MADE_BY_PROGRAM: Final = re.compile(
    r"(?:Microsoft Word - .*|Word Document|Document ?\d*|Untitled\d*|Title)\Z", re.IGNORECASE
)


def version() -> str:
    """Version of the library, and of this reader."""
    return f"{installed('defusedxml')}+{REVISION}"


def read(job: Job, builder: DocumentBuilder) -> None:
    """Raises CorruptFileError when the container or its main part is damaged, LimitError."""
    archive = Archive(job)
    main = _main_part(job, archive)
    parts = _related(job, archive, main)
    styles = Styles(_tree(job, archive, parts.get("styles")))
    notes: dict[tuple[str, str], list[Emission]] = {}
    for kind in ("footnote", "endnote"):
        path = parts.get(f"{kind}s")
        if path is not None and archive.find(path):
            story = Story(Flow(builder), styles, Numbering(None), {})
            _feed(job, path, archive.read(path), story)
            notes |= {(kind, identifier): note for identifier, note in story.notes.items()}
    flow = Flow(builder)
    flow.page()
    data = archive.read(main)
    sections = SectionTypes()
    if data.count(b"sectPr") > 2:
        _feed(job, main, data, sections)
    numbering = Numbering(_tree(job, archive, parts.get("numbering")))
    story = Story(flow, styles, numbering, notes, sections.types)
    _feed(job, main, data, story)
    flow.finish()
    builder.title = _title(job, archive) or story.title
    if story.embedded:
        builder.warn(f"{story.embedded} embedded documents were not read")
    if story.breaks_by_hand and not story.breaks_recorded:
        builder.warn("the file does not record where its pages end; page numbers count the breaks set by hand")


def _main_part(job: Job, archive: Archive) -> str:
    """The document's own part, as the package names it."""
    related = _related(job, archive, "")
    for path in (related.get("officeDocument"), "word/document.xml", "word/document2.xml"):
        if path is not None and archive.find(path):
            return path
    raise CorruptFileError(
        job.name, "it is no complete Word document: its text is missing", "save or download it again"
    )


def _related(job: Job, archive: Archive, part: str) -> dict[str, str]:
    """Parts that `part` refers to, by the last word of their relationship's type."""
    folder, _, name = part.rpartition("/")
    path = f"{folder}/_rels/{name}.rels".lstrip("/")
    found: dict[str, str] = {}
    if archive.find(path) is None:
        return found
    root = parse_part(job, path, archive.read(path, at_most=MAX_PART_BYTES))
    for element in descendants(root, "Relationship"):
        if attribute(element, "TargetMode") == "External":
            continue
        target = resolve(part, attribute(element, "Target"))
        if target is not None:
            found.setdefault(attribute(element, "Type").rpartition("/")[2], target[0])
    return found


def _tree(job: Job, archive: Archive, path: str | None) -> Any | None:
    if path is None or archive.find(path) is None:
        return None
    return parse_part(job, path, archive.read(path, at_most=MAX_PART_BYTES))


def _feed(job: Job, path: str, data: bytes, target: Story | SectionTypes) -> None:
    """Parse a part as a stream of events."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser

    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        for start in range(0, len(data), _STEP):
            parser.feed(data[start : start + _STEP])
            job.progress(min(start + _STEP, len(data)), len(data))
        parser.close()
    except DefusedXmlException as error:
        raise hostile(job, path) from error
    except (ParseError, LookupError) as error:
        raise CorruptFileError(
            job.name, f"its part {path} is damaged ({error})", "save or download the file again"
        ) from error


def _title(job: Job, archive: Archive) -> str:
    """The title in the document's properties, unless a program made it up."""
    path = _related(job, archive, "").get("core-properties", "docProps/core.xml")
    try:
        root = _tree(job, archive, path)
    except CorruptFileError:
        return ""
    title = next((text_of(element) for element in descendants(root, "title")), "") if root is not None else ""
    return "" if _MADE_BY_PROGRAM.match(title) else title
