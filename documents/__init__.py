"""Files in, documents out: one immutable text with pages, sections and exact offsets. Imports nothing else of lcdoc."""

from lcdoc.documents.document import Box, Document, Mark, Page, Section, Source, Span
from lcdoc.documents.errors import (
    CorruptFileError,
    DocumentError,
    EmptyDocumentError,
    LimitError,
    NotFoundError,
    ParserCrashError,
    PasswordError,
    SourceChangedError,
    UnsupportedTypeError,
)
from lcdoc.documents.folders import FileChoice, find_files
from lcdoc.documents.limits import Limits
from lcdoc.documents.loading import load, load_bytes

__all__ = [
    "Box",
    "CorruptFileError",
    "Document",
    "DocumentError",
    "EmptyDocumentError",
    "FileChoice",
    "LimitError",
    "Limits",
    "Mark",
    "NotFoundError",
    "Page",
    "ParserCrashError",
    "PasswordError",
    "Section",
    "Source",
    "SourceChangedError",
    "Span",
    "UnsupportedTypeError",
    "find_files",
    "load",
    "load_bytes",
]
