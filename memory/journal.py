"""Many small writes in few transactions, by one thread of the process.

Whoever waits for a write is woken after its commit, so what it was told is kept. While one transaction commits, the
next writes gather; sixty-four calls that end together cost one commit, not sixty-four.

What is committed is with the operating system and outlives the process, however it ends. A power failure may lose the
last commits, never the file's soundness; of a `durable` journal it loses nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lcdoc.memory.errors import LibraryAwayError, LibraryError, LibraryLostError
from lcdoc.memory.owner import Owner
from lcdoc.memory.store import Connection, Store

_logger = logging.getLogger(__name__)

BEAT_S = 15.0
"""How often the operation given to `Journal.repeat` is done."""
_LINGER_S = 0.2
"""How long a write that nobody waits for may wait for company."""
_HOLD_S = 600.0
"""How long writes are held for a server that is away: what they keep is paid for."""
_AGAIN_S = 0.1

Written = TypeVar("Written")


Operation = Callable[[Connection], Written]
"""A part of a write transaction. It may be done more than once, if what it did before was undone."""


@dataclass(slots=True)
class _Entry:
    operation: Operation[Any]
    future: asyncio.Future[Any] | None = None
    """Of whoever waits; belongs to that event loop."""
    result: Any = None
    error: Exception | None = None
    settled: threading.Event | None = None


@dataclass(slots=True)
class _State:
    """What has to be made anew in a forked child."""

    pid: int = field(default_factory=os.getpid)
    owner: Owner = field(default_factory=Owner.here)
    wake: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread | None = None
    queue: list[_Entry] = field(default_factory=list)
    latest: dict[Hashable, Operation[Any]] = field(default_factory=dict)
    latest_due: float = 0.0
    repeated: Operation[Any] | None = None
    repeated_due: float = 0.0
    closing: bool = False


class Journal:
    """Writes into a store on behalf of coroutines. Operations are done in the order they were given."""

    def __init__(self, store: Store, *, durable: bool = False) -> None:
        self._store = store
        self._durable = durable
        self._state = _State()

    @property
    def owner(self) -> Owner:
        """Who writes here."""
        return self._here().owner

    async def write(self, operation: Operation[Written]) -> Written:
        """Do it, and return its result once it is committed.

        Cancelling whoever waits does not take the operation back. Raises what the operation raises, and LibraryError:
        LibraryBusyError where the write lock was not had in time, LibraryAwayError where a server was away for long.
        """
        future: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._submit(_Entry(operation, future))
        return await future

    def post(self, operation: Operation[Any]) -> None:
        """Do it soon, without waiting. A failure is logged."""
        self._submit(_Entry(operation))

    def post_latest(self, key: Hashable, operation: Operation[Any]) -> None:
        """Do it together with the next write, or a little later; instead of any other of this key not yet done."""
        state = self._here()
        with state.wake:
            if not state.latest:
                state.latest_due = time.monotonic() + _LINGER_S
            state.latest[key] = operation
            self._ensure_thread(state)
            if len(state.latest) == 1:
                state.wake.notify()

    def repeat(self, operation: Operation[Any] | None) -> None:
        """Do it every `BEAT_S`, until another is given; None: no more."""
        state = self._here()
        with state.wake:
            state.repeated = operation
            state.repeated_due = time.monotonic() + BEAT_S
            if operation is not None:
                self._ensure_thread(state)
                state.wake.notify()

    def flush(self) -> None:
        """Wait until everything given so far is committed. Blocks the thread; not to be used inside a transaction."""
        state = self._here()
        if state.thread is None:  # nothing was given
            return
        settled = threading.Event()
        self._submit(_Entry(lambda _connection: None, settled=settled))
        settled.wait()

    def close(self) -> None:
        """Commit what was given and end the thread. Using the journal afterwards begins another."""
        state = self._here()
        with state.wake:
            thread = state.thread
            state.repeated = None
            state.closing = thread is not None
            state.wake.notify()
        if thread is not None:
            thread.join()
        atexit.unregister(self.close)

    def _here(self) -> _State:
        if self._state.pid != os.getpid():
            # What was gathered before a fork is the parent's to write, and the thread stayed there.
            self._state = _State()
        return self._state

    def _submit(self, entry: _Entry) -> None:
        state = self._here()
        with state.wake:
            state.queue.append(entry)
            self._ensure_thread(state)
            state.wake.notify()

    def _ensure_thread(self, state: _State) -> None:
        if state.thread is None:
            state.thread = threading.Thread(target=self._run, args=(state,), name="lcdoc-journal", daemon=True)
            state.thread.start()
            # A daemon, so that a library left open does not keep the program from ending; but not before its end.
            atexit.register(self.close)

    def _run(self, state: _State) -> None:
        while True:
            with state.wake:
                while (wait_s := _idle_s(state)) is None or wait_s > 0:
                    state.wake.wait(wait_s)
                batch = _taken(state)
                if not batch and state.closing:
                    state.thread, state.closing = None, False
                    return
            self._commit(batch, state)
            _settle(batch)

    def _commit(self, batch: list[_Entry], state: _State) -> None:
        deadline = time.monotonic() + _HOLD_S
        while True:
            try:
                with self._store.write(durable=self._durable) as connection:
                    for entry in batch:
                        entry.result = _without_cursor(entry.operation(connection))
                return None
            except (LibraryAwayError, LibraryLostError) as error:
                if state.closing or time.monotonic() > deadline:
                    return _fail(batch, error)
                _logger.warning("%s; what is to be kept is held until it can be", error)
                time.sleep(_AGAIN_S)
            except LibraryError as error:
                return _fail(batch, error)
            except Exception as error:  # noqa: BLE001 - it is raised where the operation is waited for
                if len(batch) == 1:
                    return _fail(batch, error)
                # One operation was wrong, and all were undone: each by itself, so that it fails alone.
                for entry in batch:
                    self._commit([entry], state)
                return None


def _fail(batch: Iterable[_Entry], error: Exception) -> None:
    for entry in batch:
        entry.error = error


def _without_cursor(result: Any) -> Any:
    """`result`, unless it is a cursor: its end in another thread would reset a statement that this one is running."""
    if isinstance(result, sqlite3.Cursor):
        result.close()
        return None
    return result


def _idle_s(state: _State) -> float | None:
    """How long there is nothing to do; None: until somebody gives something."""
    if state.queue or state.closing:
        return 0.0
    dues = [due for due, wanted in ((state.latest_due, state.latest), (state.repeated_due, state.repeated)) if wanted]
    return max(0.0, min(dues) - time.monotonic()) if dues else None


def _taken(state: _State) -> list[_Entry]:
    """Everything to be done now. What may wait comes along when something is done anyway."""
    batch = state.queue
    state.queue = []
    batch += [_Entry(operation) for operation in state.latest.values()]
    state.latest.clear()
    if state.repeated is not None and time.monotonic() >= state.repeated_due:
        batch.append(_Entry(state.repeated))
        state.repeated_due = time.monotonic() + BEAT_S
    return batch


def _settle(batch: Iterable[_Entry]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Entry]] = {}
    for entry in batch:
        if entry.future is not None:
            loops.setdefault(entry.future.get_loop(), []).append(entry)
        elif entry.error is not None:
            _logger.warning("a record was not kept: %s", entry.error)
        if entry.settled is not None:
            entry.settled.set()
    for loop, entries in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, entries)
        except RuntimeError:
            # The loop was closed: whoever waited is gone, and what was written stays.
            continue


def _wake(entries: Iterable[_Entry]) -> None:
    for entry in entries:
        if entry.future is None or entry.future.done():
            continue
        if entry.error is None:
            entry.future.set_result(entry.result)
        else:
            entry.future.set_exception(entry.error)
