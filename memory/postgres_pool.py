"""A few connections to PostgreSQL for the threads of a process, opened when they are needed and kept.

Without threads of its own, so that a fork loses nothing but the connections: those are the parent's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from lcdoc.memory.errors import LibraryBusyError
from lcdoc.memory.postgres_address import Address

Raw = psycopg.Connection[tuple[Any, ...]]

MOST = 4
"""Connections a process has at most for its transactions. A server admits a hundred by default, from all nodes."""


class Pool:
    """Up to `MOST` connections, each lent to one thread at a time."""

    def __init__(self, address: Address, open_one: Callable[[], Raw], *, timeout_s: float) -> None:
        self._address = address
        self._open_one = open_one
        self._timeout_s = timeout_s
        self._idle: list[Raw] = []
        self._reset()

    def take(self) -> Raw:
        """A connection, which may turn out to be broken. Raises psycopg.OperationalError, LibraryBusyError."""
        if self._pid != os.getpid():
            # A child must not even close what it inherited: it would say good-bye in the parent's name.
            self._inherited = self._idle
            self._reset()
        if not self._free.acquire(timeout=self._timeout_s):
            problem = f"all {MOST} connections of this process were in use for {self._timeout_s:.0f} s"
            raise LibraryBusyError(self._address.name, problem, "try again later")
        try:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
            return self._open_one()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, raw: Raw) -> None:
        """Take a connection back; one that is broken, or in the middle of something, is closed."""
        if self._pid != os.getpid():
            return
        if raw.closed or raw.info.transaction_status != TransactionStatus.IDLE:
            raw.close()
        else:
            with self._lock:
                self._idle.append(raw)
        self._free.release()

    def close(self) -> None:
        """Close the connections that nobody uses. Those in use are kept when they come back; taking opens anew."""
        if self._pid == os.getpid():
            with self._lock:
                idle, self._idle = self._idle, []
            for raw in idle:
                raw.close()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle = []
        self._free = threading.BoundedSemaphore(MOST)
