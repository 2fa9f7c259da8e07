"""What is kept between calls and between questions: the library."""

from lcdoc.memory.caches import Caches, KeptCache
from lcdoc.memory.calls import Call, Calls
from lcdoc.memory.costs import CostLine
from lcdoc.memory.entries import Entry
from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryAwayError,
    LibraryBusyError,
    LibraryCorruptError,
    LibraryError,
    LibraryLostError,
    LibraryVersionError,
    UnknownDocumentError,
)
from lcdoc.memory.job_records import JobRecord, JobStatus, UnknownJobError
from lcdoc.memory.jobs import Jobs
from lcdoc.memory.library import Library
from lcdoc.memory.memos import Memos
from lcdoc.memory.places import library_path, shared_url
from lcdoc.memory.runs import Run, Runs, UnknownRunError
from lcdoc.memory.usage import ModelUsage

__all__ = [
    "Caches",
    "Call",
    "Calls",
    "CostLine",
    "Entry",
    "JobRecord",
    "JobStatus",
    "Jobs",
    "KeptCache",
    "Library",
    "LibraryAccessError",
    "LibraryAwayError",
    "LibraryBusyError",
    "LibraryCorruptError",
    "LibraryError",
    "LibraryLostError",
    "LibraryVersionError",
    "Memos",
    "ModelUsage",
    "Run",
    "Runs",
    "UnknownDocumentError",
    "UnknownJobError",
    "UnknownRunError",
    "library_path",
    "shared_url",
]
