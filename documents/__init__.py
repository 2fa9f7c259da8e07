"""Files in, documents out: one immutable text with pages, sections and exact offsets. Imports nothing else of lcdoc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from lcdoc.documents.limits import Limits

if TYPE_CHECKING:
    from lcdoc.documents.folders import FileChoice, find_files
    from lcdoc.documents.loading import load, load_bytes
    from lcdoc.documents.pool import ParserPool

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
    "ParserPool",
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

# The parser's process imports this package too, and starts sooner without what only its parent needs.
_LATER = {
    "FileChoice": "folders",
    "ParserPool": "pool",
    "find_files": "folders",
    "load": "loading",
    "load_bytes": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value
