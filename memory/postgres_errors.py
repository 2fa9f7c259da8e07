"""What PostgreSQL and the way to it can say, as errors of the library: one line, with what to do about it."""

from __future__ import annotations

import sqlite3

import psycopg

from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryAwayError,
    LibraryBusyError,
    LibraryCorruptError,
    LibraryError,
    LibraryLostError,
)

_REFUSED = {
    "password authentication failed": "check user and password (a password may also come from PGPASSWORD or ~/.pgpass)",
    "no password supplied": "name a password in the address, in PGPASSWORD or in ~/.pgpass",
    "no pg_hba.conf entry": "admit this machine in the server's pg_hba.conf",
    'role "': "make the user on the server: CREATE ROLE ... LOGIN",
    'database "': "make the database on the server: CREATE DATABASE ...",
    "permission denied": "grant the user CONNECT and CREATE on the database",
}
"""What the server says to whoever may not come in, and the remedy. Waiting does not help."""
_MADE_ANEW = "restore the database from a backup, or name an empty one: its calls are then paid anew"


def refused(name: str, error: psycopg.Error) -> LibraryAccessError | None:
    """The error of a connection that will not be had by waiting for it; None for one that may."""
    said = one_line(error)
    remedy = next((remedy for words, remedy in _REFUSED.items() if words in said), None)
    return None if remedy is None else LibraryAccessError(name, f"the server refuses: {said}", remedy)


def away(name: str, error: BaseException) -> LibraryAwayError:
    """The error of a connection that was not had in time."""
    remedy = "check that the server runs and can be reached from here, and try again"
    return LibraryAwayError(name, f"the server cannot be reached ({one_line(error)})", remedy)


def translation(name: str, error: Exception) -> LibraryError | None:
    """The LibraryError that an error inside a transaction stands for; None for a mistake in our own SQL."""
    if isinstance(error, sqlite3.DatabaseError):  # what the stores raise for a row whose bytes make no sense
        if getattr(error, "sqlite_errorname", "") != "SQLITE_CORRUPT":
            return None
        return LibraryCorruptError(name, f"a row is damaged ({error})", _MADE_ANEW)
    if not isinstance(error, psycopg.Error):
        return None
    state, said = error.sqlstate or "", one_line(error)
    # https://www.postgresql.org/docs/current/errcodes-appendix.html
    known = {
        ("55P03",): LibraryBusyError(name, "another process held a lock for too long", "try again when it is done"),
        ("53100",): LibraryAccessError(name, "the server's disk is full", "free some space on the server"),
        ("40001", "40P01", "53", "57014"): LibraryLostError(
            name, f"the server undid a transaction ({said})", "try again"
        ),
        ("54",): LibraryError(
            name, f"it is more than the server takes ({said})", "a path of more than 2,600 bytes is: shorten it"
        ),
        ("25006",): LibraryAccessError(name, "the server admits no writing (a standby?)", "name the primary server"),
        ("42501",): LibraryAccessError(
            name, f"the user may not do that ({said})", "let it own the schema `lcdoc`, or grant it CREATE"
        ),
        ("XX",): LibraryCorruptError(name, f"the server found its data damaged ({said})", _MADE_ANEW),
    }
    lost = LibraryLostError(name, f"the connection was lost ({said})", "try again")
    other = lost if isinstance(error, psycopg.OperationalError) else None
    return next((found for states, found in known.items() if state.startswith(states)), other)


def one_line(error: BaseException) -> str:
    """What an error says, on one line. The words of libpq never have the password."""
    return " ".join(str(error).split())
