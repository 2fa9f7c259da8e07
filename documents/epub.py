"""EPUB 2 and 3: zip, package, spine, contents.

Text comes in spine order; files that the spine puts outside the main line (`linear="no"`: notes, answers) follow at the
end. Sections are the table of contents, mapped through element ids to offsets; a book without one gets its headings.
Pages are the printed pages, where the book marks them. Navigation lists inside the text are left out, footnotes stay
where they stand. Nothing is fetched, and nothing but text is unpacked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import version as installed
from typing import Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.charset import decode_markup
from lcdoc.documents.epub_contents import Contents, Target, read_navigation, read_ncx
from lcdoc.documents.epub_package import Package, read_package
from lcdoc.documents.errors import CorruptFileError
from lcdoc.documents.flow import Flow
from lcdoc.documents.markup import Targets, page_label, read_markup
from lcdoc.documents.unzip import Archive
from lcdoc.documents.xml_parts import MAX_PART_BYTES

READER: Final = "selectolax"
REVISION: Final = 1

_VOID: Final = "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr"
# In XHTML `<a id="x"/>` is complete; to an HTML parser it stays open. Values cannot hold `<`, so no scan goes far.
_EMPTY_ELEMENT: Final = re.compile(
    rf"""<(?!(?:{_VOID})\b)([A-Za-z][\w:.-]*)((?:\s+[\w:.-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*/>""", re.IGNORECASE
)
_CDATA: Final = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_INTERNAL_SUBSET: Final = re.compile(r"(<!DOCTYPE[^>\[]{0,1000})\[[^\]]*\]\s*>")
_FRONT: Final = "front"
"""Label of the page that holds what stands before the first printed page number."""


def version() -> str:
    """Version of the library, and of this reader."""
    return f"{installed('selectolax')}+{REVISION}"


def read(job: Job, builder: DocumentBuilder) -> None:
    """Raises CorruptFileError, LimitError, or PasswordError for a book under DRM."""
    archive = Archive(job)
    package = read_package(job, archive, builder)
    contents = _contents(job, archive, package, builder)
    builder.title = package.title
    targets = _targets(package, contents, archive)
    flow = Flow(builder, front_label=_FRONT, record_headings=not contents.entries)
    damaged: CorruptFileError | None = None
    for index, path in enumerate(package.spine, 1):
        try:
            decoded = decode_markup(archive.read(path))
        except CorruptFileError as error:
            damaged = error
            builder.warn(f"part of the book is missing: {error.problem}")
            continue
        if decoded is None:
            builder.warn(f"{path} is not text; it was left out")
            continue
        if decoded.warning:
            builder.warn(f"{path}: {decoded.warning}")
        flow.paragraph()
        flow.anchor(_key((path, "")))
        for label in targets.page_files[path]:
            flow.page(label)
        if read_markup(as_html(decoded.text), flow, targets=targets.by_file(path), contents=False):
            builder.warn("elements nested too deep were flattened")
        job.progress(index, len(package.spine))
    flow.finish()
    if damaged is not None and not builder.length:
        raise damaged
    _sections(contents, flow, builder)


def as_html(xhtml: str) -> str:
    """XHTML in the form that an HTML parser reads the same way: empty elements closed, CDATA as text."""
    doctype = xhtml.find("<!DOCTYPE", 0, 2000)
    if doctype >= 0 and (declared := _INTERNAL_SUBSET.match(xhtml, doctype)):
        xhtml = f"{xhtml[:doctype]}{declared[1]}>{xhtml[declared.end() :]}"
    if "<![CDATA[" in xhtml:
        xhtml = _CDATA.sub(lambda match: match[1].replace("&", "&amp;").replace("<", "&lt;"), xhtml)
    return _EMPTY_ELEMENT.sub(r"<\1\2></\1>", xhtml)


def _contents(job: Job, archive: Archive, package: Package, builder: DocumentBuilder) -> Contents:
    """The table of contents from the navigation document, or from the NCX where that has none."""
    found = Contents()
    for path, is_ncx in ((package.navigation, False), (package.ncx, True)):
        if path is None or found.entries:
            continue
        if archive.find(path) is None:
            builder.warn(f"the contents list {path} is missing from the file")
            continue
        try:
            data = archive.read(path, at_most=MAX_PART_BYTES)
            other = read_ncx(job, path, data) if is_ncx else read_navigation(path, data)
        except CorruptFileError as error:
            builder.warn(f"the contents list cannot be read: {error.problem}")
            continue
        found = Contents(other.entries, found.pages or other.pages)
    return found


class _TargetsByFile:
    """The ids that the contents and the page list point at, file by file."""

    def __init__(self) -> None:
        self.anchors: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.pages: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.page_files: defaultdict[str, list[str]] = defaultdict(list)

    def by_file(self, path: str) -> Targets:
        return Targets(self.anchors.get(path, {}), self.pages.get(path, {}))


def _targets(package: Package, contents: Contents, archive: Archive) -> _TargetsByFile:
    targets = _TargetsByFile()
    # A contents list may spell a path in another letter case than the manifest.
    files = {archive.find(path): path for path in package.spine}
    for entry in contents.entries:
        file, fragment = entry.target
        path = files.get(archive.find(file))
        if path is not None and fragment:
            targets.anchors[path][fragment] = _key(entry.target)
    for printed, (file, fragment) in contents.pages:
        label = page_label(printed) or printed[:20]
        path = files.get(archive.find(file))
        if path is not None and fragment:
            targets.pages[path].setdefault(fragment, label)
        elif path is not None:
            targets.page_files[path].append(label)
    return targets


def _sections(contents: Contents, flow: Flow, builder: DocumentBuilder) -> None:
    lost = 0
    for entry in contents.entries:
        offset = flow.anchors.get(_key(entry.target))
        if offset is None:
            offset = flow.anchors.get(_key((entry.target[0], "")))
        if offset is None:
            lost += 1
        elif offset < builder.length:
            builder.heading(entry.title, entry.level, offset)
    if lost:
        noun = "entry of the table of contents points" if lost == 1 else "entries of the table of contents point"
        builder.warn(f"{lost} {noun} nowhere")


def _key(target: Target) -> str:
    return f"{target[0].casefold()}#{target[1]}"
