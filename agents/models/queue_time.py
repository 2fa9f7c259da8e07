"""How long a request waits in our own queues, which is neither the server's time nor anybody's failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class QueueTime:
    """The waiting of one request, in seconds."""

    total_s: float = 0.0
    queued: bool = False
    """It waits, or left the queue without having had its turn: nothing was sent since."""


_queue_time: ContextVar[QueueTime | None] = ContextVar("queue_time", default=None)


@contextmanager
def watch_queues() -> Iterator[QueueTime]:
    """The queue time of the requests made inside, by this task. Watches nest: the outer one has the inner one's too."""
    outer, inner = _queue_time.get(), QueueTime()
    token = _queue_time.set(inner)
    try:
        yield inner
    finally:
        _queue_time.reset(token)
        if outer is not None:
            outer.total_s += inner.total_s


@contextmanager
def in_queue() -> Iterator[None]:
    """Around the wait for one's turn."""
    watch = _queue_time.get() or QueueTime()
    clock = asyncio.get_running_loop().time
    start = clock()
    watch.queued = True
    try:
        yield
        watch.queued = False
    finally:
        watch.total_s += clock() - start
