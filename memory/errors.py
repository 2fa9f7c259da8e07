"""What can go wrong with the library. Every message names its file, or its server, and what to do about it."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class LibraryError(Exception):
    """The library could not do what was asked.

    `path` names the library's file, or the address of the server where its shared part lies; `problem` says what
    happened, `remedy` what the user can do. `str(error)` is one line.
    """

    def __init__(self, path: Path | str, problem: str, remedy: str = "") -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        message = f"library {path}: {problem}"
        super().__init__(f"{message}; {remedy}" if remedy else message)


class LibraryAccessError(LibraryError):
    """The library's place cannot be created, opened or written."""


class LibraryBusyError(LibraryError):
    """Another process kept the library's write lock for longer than the lock timeout."""


class LibraryCorruptError(LibraryError):
    """The file is damaged, or it is not a SQLite database, or not an lcdoc library."""


class LibraryVersionError(LibraryError):
    """The library was made by a newer lcdoc."""


class LibraryAwayError(LibraryError):
    """The server of the shared part cannot be reached, and was waited for. Nothing was done: it may be tried again."""


class LibraryLostError(LibraryError):
    """The server ended a transaction, or was lost in it. Nothing of it was kept: it may be done again at once."""


class UnknownDocumentError(LibraryError):
    """The library holds no document of that id, path or prefix, or more than one."""


_ELSEWHERE = "name another place with --library PATH or the LCDOC_LIBRARY variable"


def start_anew(path: Path) -> str:
    """The remedy for a file that cannot be used as a library."""
    return f"move it away (to {path.name}.bad, say) and a new library is made from your files, or {_ELSEWHERE}"


def unusable(path: Path, problem: str) -> LibraryAccessError:
    """The library's place does not admit one."""
    return LibraryAccessError(path, problem, _ELSEWHERE)


def translated(path: Path, error: sqlite3.Error) -> LibraryError | None:
    """The LibraryError that an error of SQLite stands for; None for a mistake in our own SQL, which must surface."""
    name: str = getattr(error, "sqlite_errorname", "")
    known = {
        ("SQLITE_BUSY", "SQLITE_LOCKED"): LibraryBusyError(
            path, "another process is writing to it and did not finish in time", "try again when it is done"
        ),
        ("SQLITE_NOTADB", "SQLITE_CORRUPT"): LibraryCorruptError(
            path, f"not a sound SQLite database ({error})", start_anew(path)
        ),
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"): unusable(
            path, f"cannot be opened for writing ({error})"
        ),
        ("SQLITE_FULL",): LibraryAccessError(path, "the disk is full", "free some space, or run `lcdoc library prune`"),
        ("SQLITE_IOERR",): LibraryAccessError(
            path, f"reading or writing it failed ({error})", "check the disk it is on"
        ),
    }
    if "no such module: fts5" in str(error):
        return LibraryError(path, "this Python's SQLite has no full-text search (FTS5)", "use another build of Python")
    if 'near "RETURNING"' in str(error):
        problem = f"this Python's SQLite is {sqlite3.sqlite_version}, and batch jobs need 3.35 or later"
        return LibraryError(path, problem, "use another build of Python")
    return next((said for names, said in known.items() if name.startswith(names)), None)
