"""Making vectors while nothing else is going on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lcdoc.retrieval.index import Index

BATCH_PASSAGES = 16
"""Passages embedded at a time: what a pause or a stop has to wait for, half a second on two cores."""


class BackgroundFill:
    """A thread that makes the vectors documents still lack. Use as a context manager: leaving it stops the thread.

    While a question is being answered, hold `paused()`: the machine is the question's alone. What was made is kept,
    whatever happens. An exception in the thread is raised by `stop`, `wait` and the end of the `with` block.
    """

    def __init__(self, index: Index, document_ids: Sequence[str]) -> None:
        self._index = index
        self._document_ids = list(document_ids)
        self._stopping = threading.Event()
        self._may_run = threading.Condition()
        self._pauses = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="lcdoc-background-fill", daemon=True)

    def start(self) -> None:
        """Start the thread. `with` does it; who does not use `with` calls `stop` in the end."""
        self._thread.start()

    def __enter__(self) -> BackgroundFill:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._halt()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No batch is begun inside the block, by whichever thread holds it. The one under way is finished."""
        with self._may_run:
            self._pauses += 1
        try:
            yield
        finally:
            with self._may_run:
                self._pauses -= 1
                self._may_run.notify_all()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all is done; False if it is not by then. Raises what went wrong in the thread."""
        self._thread.join(timeout_s)
        self._raise()
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the batch under way. Raises what went wrong in the thread."""
        self._halt()
        self._raise()

    def _halt(self) -> None:
        self._stopping.set()
        with self._may_run:
            self._may_run.notify_all()
        self._thread.join()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _go_on(self) -> bool:
        with self._may_run:
            self._may_run.wait_for(lambda: not self._pauses or self._stopping.is_set())
        return not self._stopping.is_set()

    def _run(self) -> None:
        try:
            for document_id in self._document_ids:
                if not self._go_on():
                    return
                self._index.fill(document_id, go_on=self._go_on, batch_passages=BATCH_PASSAGES)
        except BaseException as error:  # noqa: BLE001 - not lost: raised in the thread that waits
            self._error = error
