"""Parsing many documents: a few at once, each in a process of its own, without paying for its start every time.

`ParserPool` gives what `lcdoc.documents.load` gives, errors included. On Linux its parsers are forked from a process
that has everything imported (see `pool_template.py`); elsewhere each is started anew, as `load` does it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lcdoc.documents.builder import Job, Progress, ignore_progress
from lcdoc.documents.document import Document
from lcdoc.documents.errors import DocumentError
from lcdoc.documents.isolation import run_parser
from lcdoc.documents.limits import Limits
from lcdoc.documents.loading import RawFile, read_raw
from lcdoc.documents.pool_ahead import ahead
from lcdoc.documents.pool_stop import Stop, StoppedError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ParserPool", "Stop", "StoppedError"]

FORKS: bool = sys.platform == "linux"
"""Whether parsers are forked. Forking is not safe on macOS, and not there on Windows."""

_CLOSED = "the parser pool was closed"

Path = str | os.PathLike[str]


class _Parsers(Protocol):
    """How a pool runs a parser's process."""

    def run(self, task: str, job: Job, stop: Stop, **options: Any) -> dict[str, Any]: ...

    def close(self) -> None: ...


class ParserPool:
    """Parses with at most `processes` processes at once (default: as many as there are processors to use).

    Shared by threads. Use as a context manager, or `close()` it, which ends at once what is under way. A parser that
    crashes, hangs or eats its memory costs its document only, and no process sees two documents. If the process that
    holds the pool is killed, its parsers end too.
    """

    def __init__(self, processes: int | None = None) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"a parser pool needs at least 1 process, not {processes}")
        self.processes = processes or usable_processors()
        self._parsers = _parsers()
        self._changed = threading.Condition()
        self._stops: list[Stop] = []
        """Of what is being parsed."""
        self._closed = False
        self._threads = ThreadPoolExecutor(self.processes, thread_name_prefix="lcdoc-parsing")
        """Those wait that no thread of the caller's waits for; started when first needed."""

    def __enter__(self) -> ParserPool:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every parser. Who waits for one gets StoppedError."""
        with self._changed:
            self._closed = True
            stops = list(self._stops)
            self._changed.notify_all()
        for stop in stops:
            stop.set()
        self._parsers.close()
        # What has not begun ends at once with StoppedError. Cancelled, it would look as if whoever waits had been.
        self._threads.shutdown(wait=False)

    def parse(
        self,
        raw: RawFile,
        *,
        password: str | None = None,
        limits: Limits | None = None,
        progress: Progress = ignore_progress,
        stop: Stop | None = None,
    ) -> Document:
        """As `lcdoc.documents.loading.parse`, as soon as a process is free; what it raises, and StoppedError.

        The time in which the document has to be done begins with its process. `progress` is called from the thread
        that called; `stop` lets another thread end it.
        """
        job = Job(raw.name, raw.data, raw.media_type, password, limits or Limits(), progress)
        stop = stop or Stop()
        with self._process_free(stop):
            result = self._parsers.run("read", job, stop, digest=raw.digest)
        return Document.from_layout(result["text"], result["layout"])

    async def parse_async(
        self,
        raw: RawFile,
        *,
        password: str | None = None,
        limits: Limits | None = None,
        progress: Progress = ignore_progress,
    ) -> Document:
        """As `parse`, for asyncio: cancelling it ends the parser. `progress` is called from another thread."""
        stop = Stop()
        parse = partial(self.parse, raw, password=password, limits=limits, progress=progress, stop=stop)
        if self._closed:
            raise StoppedError(_CLOSED)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, parse)
        finally:
            stop.set()

    def parse_many(
        self,
        paths: Iterable[Path],
        *,
        password: str | None = None,
        limits: Limits | None = None,
        in_order: bool = True,
    ) -> Generator[tuple[Path, Document | DocumentError]]:
        """Each path with its document, or with the error that `load` would raise for it.

        In the order given, or with `in_order=False` in that of completion, where a slow document holds nobody up.
        Files are read and parsed ahead of the loop within bounds: `processes` + 1 files' bytes are held at a time, and
        some tens of documents. Leaving the loop ends it.
        """

        def read(path: Path, stop: Stop) -> Document | DocumentError:
            try:
                return self.parse(read_raw(path, limits=limits), password=password, limits=limits, stop=stop)
            except DocumentError as error:
                return error

        # One file more than can be parsed is read, so that a process that is done finds the next at hand.
        return ahead(read, paths, threads=self.processes + 1, in_order=in_order, weigh=_characters)

    @contextmanager
    def _process_free(self, stop: Stop) -> Iterator[None]:
        """Wait until fewer than `processes` parsers run, and count as one."""

        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        with stop.calls(wake), self._changed:
            self._changed.wait_for(lambda: self._closed or stop.is_set or len(self._stops) < self.processes)
            stop.check()
            if self._closed:
                raise StoppedError(_CLOSED)
            self._stops.append(stop)
        try:
            yield
        finally:
            with self._changed:
                self._stops.remove(stop)
                self._changed.notify()


def usable_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _characters(result: Document | DocumentError) -> int:
    return len(result.text) if isinstance(result, Document) else 0


def _parsers() -> _Parsers:
    if FORKS:
        from lcdoc.documents.pool_forks import Forks

        return Forks()
    return _OneByOne()


class _OneByOne:
    """A process is started for each document."""

    def run(self, task: str, job: Job, stop: Stop, **options: Any) -> dict[str, Any]:
        return run_parser(task, job, stop=stop, **options)

    def close(self) -> None:
        """There is nothing that outlives a document."""
