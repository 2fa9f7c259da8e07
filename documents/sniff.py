"""What a file is, by its content; its name only breaks ties between kinds of text."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import PurePath
from typing import Final

from lcdoc.documents.builder import Job
from lcdoc.documents.charset import decode, looks_binary
from lcdoc.documents.errors import (
    CorruptFileError,
    DocumentError,
    EmptyDocumentError,
    PasswordError,
    UnsupportedTypeError,
)
from lcdoc.documents.signatures import ENCRYPTED_OFFICE, OLE2, Kind, by_magic, in_ole2, in_zip
from lcdoc.documents.unzip import Archive

PDF: Final = "application/pdf"
EPUB: Final = "application/epub+zip"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HTML: Final = "text/html"
MARKDOWN: Final = "text/markdown"
PLAIN: Final = "text/plain"

_SAMPLE_BYTES: Final = 1 << 16
_MARKDOWN_SUFFIXES: Final = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mkdn", ".mdx", ".rmd", ".qmd"})
_HTML_SUFFIXES: Final = frozenset({".html", ".htm", ".xhtml", ".xht", ".shtml"})

_PROLOG: Final = re.compile(r"(?:[\s\ufeff]++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_HTML_START: Final = re.compile(
    r"<(?:!doctype\s+html|html|head|body|title|meta|script|style|frameset)\b", re.IGNORECASE
)
_HTML_TAG: Final = re.compile(
    r"</?(?:a|b|blockquote|br|center|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|span|strong|table|td|tr|ul)(?=[\s/>])",
    re.IGNORECASE,
)
_XML_ROOT: Final = re.compile(r"<(?!!)(?:[\w.-]+:)?([\w.-]+)")
_HEADING_LINE: Final = re.compile(r"^#{1,6} \S", re.MULTILINE)
_MARKDOWN_MARKS: Final = (
    re.compile(r"^#{2,6} \S", re.MULTILINE),
    re.compile(r"^(?:```|~~~)", re.MULTILINE),
    re.compile(r"\[[^\]\n]{1,200}\]\((?:https?:|#|\.{0,2}/)"),
    re.compile(r"^\|?(?:[ \t]*:?-{3,}:?[ \t]*\|)+", re.MULTILINE),
    re.compile(r"\*\*\S[^*\n]{0,200}\*\*"),
    re.compile(r"^\S[^\n]{0,200}\n(?:={3,}|-{3,})$", re.MULTILINE),
    re.compile(r"^> \S", re.MULTILINE),
)
_WEB_ARCHIVE: Final = re.compile(r"^Content-Type:\s*multipart/related", re.MULTILINE | re.IGNORECASE)
_XML_KINDS: Final = {
    "fictionbook": Kind("a FictionBook e-book (.fb2)", "convert it to EPUB, for example with Calibre"),
    "svg": Kind("an SVG image", "save it as PDF"),
    "worddocument": Kind("a Word 2003 XML file", "save it as .docx or PDF"),
    "package": Kind("a Word XML file", "save it as .docx or PDF"),
    "workbook": Kind("an Excel XML file", "save it as PDF"),
    "document-content": Kind("an OpenDocument file", "save it as .docx or PDF"),
    "document": Kind("an OpenDocument file", "save it as .docx or PDF"),
}


def sniff(data: bytes, name: str) -> str:
    """The media type of `data`, one that a reader takes. `name` is the file's path, or `-`.

    Raises UnsupportedTypeError for content that has no reader, PasswordError for an encrypted Office file,
    CorruptFileError for a zip container that is cut off, EmptyDocumentError when there are no bytes.
    """
    if not data:
        raise EmptyDocumentError(name, "is empty (0 bytes)", "check that it was downloaded or saved completely")
    if _is_pdf(data):
        return PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return _sniff_zip(data, name)
    if data.startswith(OLE2):
        kind = in_ole2(data)
        if kind is ENCRYPTED_OFFICE:
            raise PasswordError(name, f"is {kind.name}", kind.remedy)
        raise _unsupported(name, kind)
    kind_by_magic = by_magic(data)
    if kind_by_magic is not None:
        raise _unsupported(name, kind_by_magic)
    return _sniff_text(data, name)


def _is_pdf(data: bytes) -> bool:
    """A PDF's header may follow other bytes; a text that merely speaks of one has no objects."""
    at = data.find(b"%PDF-", 0, 1024)
    return at == 0 or (at > 0 and (b" obj" in data[at : at + 65_536] or b"startxref" in data[-2048:]))


def _sniff_zip(data: bytes, name: str) -> str:
    try:
        archive = Archive(Job(name, data))
    except CorruptFileError:
        # The directory stands at the end; the first members show what it was meant to be.
        head = data[:4096]
        if b"application/epub+zip" in head or b"META-INF/container.xml" in head:
            return EPUB
        if b"word/" in head or (b"[Content_Types].xml" in head and PurePath(name).suffix.lower() == ".docx"):
            return DOCX
        raise
    names = archive.names()
    mimetype = _read_member(archive, "mimetype").decode("latin-1").strip()
    if archive.find("META-INF/container.xml") or mimetype == EPUB:
        return EPUB
    if archive.find("word/document.xml"):
        return DOCX
    types = _read_member(archive, "[Content_Types].xml")
    if b"wordprocessingml.document.main" in types or b"wordprocessingml.template.main" in types:
        return DOCX
    raise _unsupported(name, in_zip(names, mimetype, _read_member(archive, "META-INF/manifest.xml")))


def _read_member(archive: Archive, path: str) -> bytes:
    """A small member, or nothing: whether it can be read is for the reader to judge."""
    try:
        return archive.read(path, at_most=1 << 20)
    except (KeyError, DocumentError, zipfile.BadZipFile, zlib.error):
        return b""


def _sniff_text(data: bytes, name: str) -> str:
    decoded = decode(data[:_SAMPLE_BYTES])
    if decoded is None or (len(data) > _SAMPLE_BYTES and decoded.encoding == "utf-8" and looks_binary(data)):
        raise UnsupportedTypeError(
            name, "is not a document that lcdoc knows, nor text", "convert it to PDF, EPUB, DOCX, HTML or text"
        )
    text = decoded.text
    suffix = PurePath(name).suffix.lower()
    prolog = _PROLOG.match(text)
    start = prolog.end() if prolog else 0
    if _HTML_START.match(text, start):
        return HTML
    if text.startswith("<?xml") or suffix in {".fb2", ".svg", ".fodt", ".xml"}:
        root = _XML_ROOT.search(text, start)
        kind = _XML_KINDS.get(root[1].lower()) if root else None
        if kind is not None:
            raise _unsupported(name, kind)
    if _WEB_ARCHIVE.search(text[:4096]) and "MIME-Version:" in text[:4096]:
        raise _unsupported(name, Kind("a web archive (.mhtml)", "save it as HTML or PDF"))
    if suffix in _MARKDOWN_SUFFIXES:
        return MARKDOWN
    return _kind_of_text(text, start, suffix)


def _kind_of_text(text: str, start: int, suffix: str) -> str:
    """HTML fragments and Markdown against plain text."""
    if suffix in _HTML_SUFFIXES:
        return HTML if "<" in text else PLAIN
    if suffix == ".txt":
        return PLAIN
    if _HTML_TAG.match(text, start) and len(_HTML_TAG.findall(text[:16_384])) >= 4:
        return HTML
    if not suffix and _looks_like_markdown(text):
        return MARKDOWN
    return PLAIN


def _looks_like_markdown(text: str) -> bool:
    """Headings, and something else that only Markdown has; a comment in a script is `# ` too."""
    if text.startswith("#!"):
        return False
    marks = sum(bool(mark.search(text)) for mark in _MARKDOWN_MARKS)
    return marks >= 2 or (marks == 1 and bool(_HEADING_LINE.search(text)))


def _unsupported(name: str, kind: Kind) -> UnsupportedTypeError:
    return UnsupportedTypeError(name, f"is {kind.name}", kind.remedy)
