"""Caches that models of this machine have filled with pieces of documents, kept to be read from again.

The files lie beside the library, in `<library>.caches`; what they are is in the library's own tables. Nothing here
knows what stands in a file: who writes one enters it when it is whole, under a name that nobody else takes, so that
processes do not disturb each other. What was not read from longest goes first when there is too much.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
import time
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from lcdoc.memory.database import Database
from lcdoc.memory.journal import Journal

_logger = logging.getLogger(__name__)

_DAY_S = 86_400.0
_STRAY_S = 3_600.0
"""A file that has not been entered for so long was left by a process that died."""


@dataclass(frozen=True, slots=True)
class KeptCache:
    """A file of the library, as it was entered."""

    key: str
    """Of the model, the text and the recipe: one cache each."""
    text: str
    """Of the model and the text alone."""
    model: str
    """What tells the models apart: see `agents.models.local_caches`."""
    name: str
    """The model's, for people."""
    recipe: str
    """How it is held; "full" where nothing of it was dropped."""
    file: str
    digest: str
    """Of the file's bytes."""
    bytes: int
    tokens: int
    """Of the text, and the instructions before it."""
    entries: int
    """What is kept of them in each row of the cache, on average."""
    seconds: float
    """What reading it took."""
    made_at: float
    """Unix time, as `used_at`."""
    used_at: float
    prepared: bool = False
    """Whether it was made for whatever will be asked, rather than left by a question that named its recipe."""


_COLUMNS = ", ".join(field.name for field in fields(KeptCache))


class Caches:
    """The kept caches of a library. Methods raise LibraryError, and may be called from any thread."""

    def __init__(self, database: Database, journal: Journal, folder: Path) -> None:
        self._database = database
        self._journal = journal
        self.folder = folder
        """Made with the first file."""

    def path(self, cache: KeptCache) -> Path:
        """Where the file is."""
        return self.folder / cache.file

    def new_path(self, key: str) -> Path:
        """Where a new file for `key` may be written. Raises OSError where there can be no folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self.folder / f"{key}.{secrets.token_hex(4)}.kv"

    def enter(self, cache: KeptCache, document_ids: Iterable[str]) -> KeptCache:
        """Keep a file that is written; returns what is kept under its key: another where one was entered before."""
        with self._database.write() as connection:
            marks = ", ".join("?" * len(fields(cache)))
            connection.execute(f"INSERT OR IGNORE INTO caches ({_COLUMNS}) VALUES ({marks})", astuple(cache))
            connection.executemany(
                "INSERT OR IGNORE INTO cache_documents (cache, document) VALUES (?, ?)",
                [(cache.key, document_id) for document_id in document_ids],
            )
            kept = _select(connection, "key = ?", cache.key)[0]
        if kept.file != cache.file:
            self._unlink([cache])
        return kept

    def get(self, key: str) -> KeptCache | None:
        """What is kept under this key. One point read, fit for an event loop's own thread."""
        with self._database.read() as connection:
            return next(iter(_select(connection, "key = ?", key)), None)

    def of_text(self, text: str) -> List[KeptCache]:
        """What is kept of a text as one model read it, the latest first."""
        with self._database.read() as connection:
            return _select(connection, "text = ? ORDER BY made_at DESC, key", text)

    def has_model(self, model: str) -> bool:
        """Whether anything is kept of what this model read."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM caches WHERE model = ? LIMIT 1", (model,)).fetchone() is not None

    def list(self) -> List[KeptCache]:
        """All of them, the one read from last first."""
        with self._database.read() as connection:
            return _select(connection, "TRUE ORDER BY used_at DESC, key")

    def of_document(self, document_id: str) -> List[KeptCache]:
        """Those that hold a part of a document, the latest first."""
        with self._database.read() as connection:
            held = "key IN (SELECT cache FROM cache_documents WHERE document = ?) ORDER BY made_at DESC, key"
            return _select(connection, held, document_id)

    def bytes(self) -> int:
        """What the entered files take up."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT coalesce(sum(bytes), 0) FROM caches").fetchone()[0])

    def prepare(self, caches: Sequence[KeptCache]) -> None:
        """Have them serve whatever is asked from now on."""
        with self._database.write() as connection:
            connection.executemany("UPDATE caches SET prepared = 1 WHERE key = ?", [(one.key,) for one in caches])

    def used(self, cache: KeptCache) -> None:
        """Note that it was read from. Not waited for."""
        now, key = time.time(), cache.key
        self._journal.post_latest(
            ("cache", key), lambda c: c.execute("UPDATE caches SET used_at = ? WHERE key = ?", (now, key))
        )

    def drop(self, caches: Sequence[KeptCache]) -> None:
        """Forget them, and delete their files."""
        with self._database.write() as connection:
            connection.executemany(
                "DELETE FROM caches WHERE key = ? AND file = ?", [(one.key, one.file) for one in caches]
            )
        self._unlink(caches)

    def trim(self, most_bytes: int, *, but: str = "") -> List[KeptCache]:
        """Drop what was not read from longest until no more than `most_bytes` are left, but not what is kept under the
        key `but`; returns what was dropped."""
        self._journal.flush()
        dropped: List[KeptCache] = []
        kept = self.list()
        excess = sum(one.bytes for one in kept) - most_bytes
        for one in reversed(kept):
            if excess <= 0:
                break
            if one.key != but:
                dropped.append(one)
                excess -= one.bytes
        self.drop(dropped)
        return dropped

    def forget(self, document_id: str) -> None:
        """Drop what holds this document and no other."""
        with self._database.write() as connection:
            held = [row[0] for row in connection.execute(_OF_DOCUMENT, (document_id,))]
            connection.execute("DELETE FROM cache_documents WHERE document = ?", (document_id,))
            gone = [
                one for key in held for one in _select(connection, f"key = ? AND key NOT IN ({_WITH_DOCUMENTS})", key)
            ]
            connection.executemany("DELETE FROM caches WHERE key = ?", [(one.key,) for one in gone])
        self._unlink(gone)

    def prune(self, unused_days: float) -> int:
        """Drop what was not read from for so many days; returns how many."""
        self._journal.flush()
        oldest = time.time() - unused_days * _DAY_S
        dropped = [one for one in self.list() if one.used_at < oldest]
        self.drop(dropped)
        return len(dropped)

    def remove_stray(self) -> None:
        """Delete files that nobody entered, and forget those that are not there any more."""
        kept = self.list()
        self.drop([one for one in kept if not self.path(one).is_file()])
        names = {one.file for one in kept}
        for path in self._files():
            if path.name not in names and time.time() - path.stat().st_mtime > _STRAY_S:
                path.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """What the folder takes up on the disk."""
        return sum(path.stat().st_size for path in self._files())

    def problems(self) -> List[str]:
        """What is wrong with the files, a line each: every one is read. Changes nothing."""
        problems: List[str] = []
        kept = self.list()
        for one in kept:
            path = self.path(one)
            try:
                sound = is_sound(path, one)
            except OSError as error:
                problems.append(f"{path}: cannot be read ({error.strerror}); it will be made again when it is needed")
                continue
            if not sound:
                problems.append(f"{path}: is damaged; it will be made again when it is needed")
        names = {one.file for one in kept}
        problems += [
            f"{path}: a cache that the library does not know; `lcdoc library prune` removes it"
            for path in self._files()
            if path.name not in names and time.time() - path.stat().st_mtime > _STRAY_S
        ]
        return problems

    def _files(self) -> List[Path]:
        return sorted(path for path in self.folder.glob("*") if path.is_file()) if self.folder.is_dir() else []

    def _unlink(self, caches: Iterable[KeptCache]) -> None:
        for one in caches:
            try:
                self.path(one).unlink(missing_ok=True)
            except OSError as error:
                # Such as of a file that another process has open, where that matters.
                _logger.info("%s: not deleted yet (%s)", self.path(one), error.strerror)


def digest_of(path: Path) -> str:
    """A hash of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def is_sound(path: Path, cache: KeptCache) -> bool:
    """Whether a file is as it was entered, byte for byte. Raises OSError."""
    return path.stat().st_size == cache.bytes and digest_of(path) == cache.digest


_OF_DOCUMENT = "SELECT cache FROM cache_documents WHERE document = ?"
_WITH_DOCUMENTS = "SELECT cache FROM cache_documents"


def _select(connection: sqlite3.Connection, which: str, *values: object) -> List[KeptCache]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM caches WHERE {which}", values)
    return [KeptCache(*[*columns, bool(prepared)]) for *columns, prepared in rows]
