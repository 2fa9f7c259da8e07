"""Snapshots in the pages of a running engine: put there once, shared by every question behind them.

A question begins with the pages themselves and copies, of each row, only the last one, which it goes on in. What is
resident is held beside the sequences that use it, so that nobody ever writes to it, and may be let go at any time:
whoever uses it then has it alone, and the next question puts the snapshot into pages again, which is a copy from memory
or from a file. The least recently used go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from weakref import ref

import numpy as np

from lcdoc.local_engine.page_rows import Contents
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import Pages
from lcdoc.local_engine.snapshot import Origin, Snapshot


class Residents:
    """Of one cache. The engine's own thread uses it."""

    def __init__(self, tables: PageTables) -> None:
        self._pool = tables.pool
        self._tables = tables
        self._kept: OrderedDict[Hashable, Contents] = OrderedDict()
        """In the order of their last use."""
        tables.register_holder(self.held)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def pages(self) -> int:
        """How many pages they hold, shared with sequences or not; one that several hold counts once."""
        kept = np.zeros(self._pool.pages, np.bool_)
        kept[self.held()] = True
        return int(kept.sum())

    def held(self) -> Pages:
        """All of these pages."""
        return np.concatenate([np.empty(0, np.int32), *(each.held for each in self._kept.values())])

    def find(self, snapshot: Snapshot) -> Contents | None:
        """Its rows, if they are resident."""
        key = _key(snapshot)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, snapshot: Snapshot, slot: int) -> None:
        """Make a snapshot resident that is all that the sequence `slot` holds now.

        Those that nobody may ask behind any more go, and all together take no more than half of the pool, unless one
        alone does.
        """
        key = _key(snapshot)
        self._forget(key)
        for gone in [each for each in self._kept if isinstance(each, ref) and each() is None]:
            self._forget(gone)
        contents = self._tables.contents(slot)
        self._pool.retain(contents.held)
        self._kept[key] = contents
        for other in [each for each in self._kept if each != key]:
            if self.pages <= self._pool.pages // 2:
                break
            self._forget(other)

    def forget(self, snapshot: Snapshot) -> None:
        """Let it go, if it is resident."""
        self._forget(_key(snapshot))

    def evict(self, pages: int, spare: Snapshot | None = None) -> int:
        """Let snapshots go until `pages` pages are free that were not; returns how many became free.

        Those that nobody shares go first, and last those that share all their pages, with sequences or with kept
        beginnings of prompts, and free none by themselves. `spare` stays.
        """
        spared = None if spare is None else _key(spare)
        before = self._pool.free
        for key in self._cheapest():
            if self._pool.free - before >= pages:
                break
            if key != spared:
                self._forget(key)
        return self._pool.free - before

    def _cheapest(self) -> list[Hashable]:
        """The order in which they go, within each kind by their last use."""

        def sharing(key: Hashable) -> tuple[bool, bool]:
            shared = self._pool.refs[self._kept[key].held] > 1
            return bool(shared.all()), bool(shared.any())

        return sorted(self._kept, key=sharing)

    def _forget(self, key: Hashable) -> None:
        contents = self._kept.pop(key, None)
        if contents is not None:
            self._pool.release(contents.held)


def _key(snapshot: Snapshot) -> Hashable:
    """What tells snapshots apart: the file, as it was when it was mapped, or the one in memory."""
    origin: Origin = snapshot.origin
    return origin.file or ref(origin)
