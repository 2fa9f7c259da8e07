"""Small facts worth remembering for a while: how a server wants to be asked for JSON, how large its window is."""

from __future__ import annotations

import logging
import time

from lcdoc.memory.database import Database
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.journal import Journal
from lcdoc.memory.store import Connection

_logger = logging.getLogger(__name__)


class Memos:
    """Texts by key, each forgotten after its time. What they say can be found out again, so losing one is no error."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._own: dict[str, tuple[str, float]] = {}
        """What was set here: known at once, and before what other processes say."""

    def get(self, key: str) -> str | None:
        """What was noted under this key, if its time is not over. A library that cannot be read is a warning."""
        value, expires_at = self._own.get(key, ("", 0.0))
        if time.time() < expires_at:
            return value
        try:
            with self._database.read() as connection:
                row = connection.execute(
                    "SELECT value FROM memos WHERE key = ? AND expires_at > ?", (key, time.time())
                ).fetchone()
        except LibraryError as error:
            _logger.warning("%s; going on without the memo %s", error, key)
            return None
        return None if row is None else row[0]

    def set(self, key: str, value: str, *, ttl_s: float) -> None:
        """Note it for `ttl_s` seconds, in the place of an earlier memo. Known here at once, elsewhere soon."""
        now = time.time()
        self._own[key] = (value, now + ttl_s)

        def note(connection: Connection) -> None:
            connection.execute("DELETE FROM memos WHERE expires_at <= ?", (now,))
            connection.execute("INSERT OR REPLACE INTO memos VALUES (?, ?, ?)", (key, value, now + ttl_s))

        self._journal.post(note)
