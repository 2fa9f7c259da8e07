"""A workspace: the library, the index and the reader, held open between questions."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from lcdoc.documents import Limits
from lcdoc.memory import Library
from lcdoc.retrieval import DEFAULT_EMBEDDER, Chunker
from lcdoc.workflows.events import Event

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


def ignore_events(_event: Event) -> None:
    """For callers that only want the result."""


class Workspace:
    """Documents read, indexed and ready to be asked.

    Use as a context manager. Reading a file twice costs a look-up; the embedder loads in the background while files
    are read. Methods may be called from one thread at a time.
    """

    def __init__(self, library: Library, *, embedder: str = DEFAULT_EMBEDDER, limits: Limits | None = None) -> None:
        self.library = library
        self.limits = limits or Limits()
        self.chunker = Chunker()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lcdoc-embedder")
        self._embedder_name = embedder

    @classmethod
    def open(
        cls,
        library: str | os.PathLike[str] | None = None,
        *,
        embedder: str = DEFAULT_EMBEDDER,
        limits: Limits | None = None,
    ) -> Workspace:
        """A workspace over the library in this file (default: `$LCDOC_LIBRARY`, else the user's data folder)."""
        return cls(Library.open(library), embedder=embedder, limits=limits)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the library. What was read stays in it."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.library.close()
