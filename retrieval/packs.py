"""Run a forward pass over many texts: packed by length, several packs at a time."""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from lcdoc.retrieval.bert import Matrix

MAX_THREADS = 16


@dataclass(frozen=True, slots=True)
class Runner:
    """A forward pass and how it likes to be called."""

    name: str
    pooled: Callable[[Sequence[Sequence[int]]], Matrix]
    """Token ids of some texts to their vectors, (texts, dimensions)."""
    pack_tokens: int
    """Tokens one call is given, about; one text is given whole whatever its length."""
    threads: int
    limits: Callable[[], AbstractContextManager[object]]
    """Entered once around all calls: holds the numerical libraries to one thread each, where threads are ours."""


class _OneBlasThread:
    """Holds the process's BLAS to one thread while anybody needs it so.

    The setting is the process's, and threadpoolctl lets only the thread that changed it change it again; so a thread
    of its own makes the change for the first to enter, and takes it back after the last has left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._nobody = threading.Event()
        self._holder: threading.Thread | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._holder is None:
                held = threading.Event()
                self._nobody.clear()
                self._holder = threading.Thread(target=self._hold, args=(held,), name="one-blas-thread", daemon=True)
                self._holder.start()
                held.wait()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._holder is not None:
                    self._nobody.set()
                    self._holder.join()
                    self._holder = None

    def _hold(self, held: threading.Event) -> None:
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                held.set()
                self._nobody.wait()
        finally:
            held.set()


one_blas_thread = _OneBlasThread()
"""A context in which numpy's matrix products work in the calling thread alone."""


def cores() -> int:
    """Cores this process may use, at most MAX_THREADS. OMP_NUM_THREADS bounds them, as it does for BLAS and torch."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    named = os.environ.get("OMP_NUM_THREADS", "")
    most = int(named) if named.isdecimal() else 0
    return min(available, most or MAX_THREADS, MAX_THREADS)


def fill(runner: Runner, texts: Sequence[Sequence[int]], vectors: Matrix, report: Callable[[int], None]) -> None:
    """Write the vectors of `texts` (token ids) into the rows of `vectors`; `report` hears how many are done."""
    packs = list(pack_by_length([len(text) for text in texts], runner.pack_tokens))

    def run(pack: list[int]) -> int:
        vectors[pack] = runner.pooled([texts[index] for index in pack])
        return len(pack)

    with runner.limits():
        if len(packs) == 1:
            report(run(packs[0]))
            return
        done = 0
        executor = ThreadPoolExecutor(max(1, min(runner.threads, len(packs))), thread_name_prefix="embed")
        try:
            for finished in as_completed([executor.submit(run, pack) for pack in packs]):
                done += finished.result()
                report(done)
        finally:
            executor.shutdown(cancel_futures=True)


def pack_by_length(lengths: Sequence[int], pack_tokens: int) -> Iterator[list[int]]:
    """Indices of texts, longest first, in packs of at most `pack_tokens` tokens (one text is always admitted)."""
    pack: list[int] = []
    size = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if pack and size + lengths[index] > pack_tokens:
            yield pack
            pack, size = [], 0
        pack.append(index)
        size += lengths[index]
    if pack:
        yield pack


def even_packs(lengths: Sequence[int], pack_tokens: int, threads: int) -> list[list[int]]:
    """Indices of texts, longest first, in packs of like size: as many for each thread, of about `pack_tokens` at most.

    With fewer texts than that there is a pack for each.
    """
    count = min(threads * -(-sum(lengths) // (pack_tokens * threads)), len(lengths))
    packs: list[list[int]] = [[] for _ in range(count)]
    least = [(0, number) for number in range(count)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        size, number = least[0]
        packs[number].append(index)
        heapq.heapreplace(least, (size + lengths[index], number))
    return packs
