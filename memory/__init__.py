"""What is kept between calls and between questions: the library."""

from lcdoc.memory.caches import Caches, KeptCache
from lcdoc.memory.calls import Call, Calls
from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryBusyError,
    LibraryCorruptError,
    LibraryError,
    LibraryVersionError,
    UnknownDocumentError,
)
from lcdoc.memory.library import Entry, Library, library_path
from lcdoc.memory.memos import Memos
from lcdoc.memory.runs import CostLine, Run, Runs, UnknownRunError
from lcdoc.memory.usage import ModelUsage

__all__ = [
    "Caches",
    "Call",
    "Calls",
    "CostLine",
    "Entry",
    "KeptCache",
    "Library",
    "LibraryAccessError",
    "LibraryBusyError",
    "LibraryCorruptError",
    "LibraryError",
    "LibraryVersionError",
    "Memos",
    "ModelUsage",
    "Run",
    "Runs",
    "UnknownDocumentError",
    "UnknownRunError",
    "library_path",
]
