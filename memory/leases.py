"""Who is at what just now: leases that a process holds, and that everybody sees.

A lease ends when it is let go, with its process, or, where the process stopped without a trace, some time after its
last sign of life. The process gives one for all its leases together.
"""

from __future__ import annotations

from lcdoc.memory.journal import BEAT_S, Journal
from lcdoc.memory.owner import Owner
from lcdoc.memory.store import Connection, Store

LEASE_S = 4 * BEAT_S
"""How long a lease holds after its process last gave a sign of life, by the store's clock."""


class Leases:
    """The leases in a store, by key. Those written here are this process's."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._held: set[str] = set()

    def hold(self, key: str) -> None:
        """Give signs of life for this lease from here on; before `take`, which may be done with nobody waiting."""
        if not self._held:
            self._journal.repeat(self._renew)
        self._held.add(key)

    def let_go(self, key: str) -> bool:
        """Give no more signs of life for it. False where none were given."""
        if key not in self._held:
            return False
        self._held.discard(key)
        if not self._held:
            self._journal.repeat(None)
        return True

    def take(self, connection: Connection, key: str) -> None:
        """Write that it is ours, whosever it was."""
        connection.execute(
            "INSERT INTO leases (key, owner, expires_at) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at",
            (key, str(self._journal.owner), self._store.now(connection) + LEASE_S),
        )

    def end(self, connection: Connection, key: str) -> None:
        """Write that it is nobody's. Nothing happens when it is not ours (any more)."""
        connection.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (key, str(self._journal.owner)))

    def holder(self, connection: Connection, key: str) -> Owner | None:
        """The other process, or other opening of the library, that holds it; None where nobody does, or we do."""
        row = connection.execute("SELECT owner, expires_at FROM leases WHERE key = ?", (key,)).fetchone()
        if row is None or row[1] < self._store.now(connection) or row[0] == str(self._journal.owner):
            return None
        try:
            owner = Owner.from_text(row[0])
        except ValueError:
            return None
        return None if owner.is_gone() else owner

    def forget_expired(self, connection: Connection) -> None:
        """Remove the rows of leases that ran out."""
        connection.execute("DELETE FROM leases WHERE expires_at < ?", (self._store.now(connection),))

    def _renew(self, connection: Connection) -> None:
        until, owner = self._store.now(connection) + LEASE_S, str(self._journal.owner)
        connection.executemany(
            "UPDATE leases SET expires_at = ? WHERE key = ? AND owner = ?",
            [(until, key, owner) for key in tuple(self._held)],
        )
