"""What is kept between calls and between questions: the library."""

from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryBusyError,
    LibraryCorruptError,
    LibraryError,
    LibraryVersionError,
    UnknownDocumentError,
)
from lcdoc.memory.library import Entry, Library, library_path

__all__ = [
    "Entry",
    "Library",
    "LibraryAccessError",
    "LibraryBusyError",
    "LibraryCorruptError",
    "LibraryError",
    "LibraryVersionError",
    "UnknownDocumentError",
    "library_path",
]
