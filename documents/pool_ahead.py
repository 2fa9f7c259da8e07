"""Working ahead of who takes the results: a few threads, and results that wait within bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from typing import Final, Generic, TypeVar

from lcdoc.documents.pool_stop import Stop

MOST_WAITING: Final = 64
"""Results that wait to be taken before no more items are begun."""
MOST_WEIGHT: Final = 32_000_000
"""What they may weigh together: characters, where results are documents."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item, Stop], Result],
    items: Iterable[Item],
    *,
    threads: int,
    in_order: bool = True,
    weigh: Callable[[Result], int] = lambda _result: 0,
) -> Generator[tuple[Item, Result]]:
    """Each item with what `work` makes of it, in the order of the items or in that of completion.

    `threads` items are worked on at once, and begun only while there is room for results, so a slow taker slows the
    work. What `work` or `items` raises is raised here, and nothing is begun after it. When the iterator is closed (a
    loop over it was left) the Stop that `work` was given is set.
    """
    line = _Line(work, items, in_order, weigh, threads)
    for number in range(threads):
        threading.Thread(target=line.run, name=f"lcdoc-ahead-{number}", daemon=True).start()
    try:
        while (done := line.take()) is not None:
            yield done
    finally:
        line.end()


class _Line(Generic[Item, Result]):
    """What is between the threads that work and the one that takes."""

    def __init__(
        self,
        work: Callable[[Item, Stop], Result],
        items: Iterable[Item],
        in_order: bool,
        weigh: Callable[[Result], int],
        threads: int,
    ) -> None:
        self._work = work
        self._items = enumerate(items)
        self._in_order = in_order
        self._weigh = weigh
        self._threads = threads
        self._stop = Stop()
        self._source = threading.Lock()
        """Held while an item is taken, which may take its time; what is below has a lock of its own."""
        self._changed = threading.Condition()
        self._done: dict[int, tuple[Item, Result, int]] = {}
        """What was done and not taken: by the item's number, with its weight, in the order of completion."""
        self._taken = 0
        self._weight = 0
        self._no_more = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Work at items until there are no more."""
        failure: BaseException | None = None
        try:
            while (begun := self._begin()) is not None:
                number, item = begun
                result = self._work(item, self._stop)
                weight = self._weigh(result)
                with self._changed:
                    self._done[number] = (item, result, weight)
                    self._weight += weight
                    self._changed.notify_all()
                # Held until the next one is done, it would count twice.
                del begun, item, result
        except BaseException as error:  # noqa: BLE001 - raised where results are taken
            failure = error
        with self._changed:
            self._no_more = True
            self._threads -= 1
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _begin(self) -> tuple[int, Item] | None:
        """The next item with its number, as soon as there is room for its result."""
        with self._changed:
            self._changed.wait_for(self._may_begin)
        with self._source:
            return None if self._no_more else next(self._items, None)

    def _may_begin(self) -> bool:
        return self._no_more or (len(self._done) < MOST_WAITING and self._weight < MOST_WEIGHT)

    def take(self) -> tuple[Item, Result] | None:
        """The next item that is done, as soon as one is; None when all are taken. Raises what a thread raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._next() in self._done or not self._threads)
            number = self._next()
            if number not in self._done:
                if self._failure is not None:
                    raise self._failure
                return None
            item, result, weight = self._done.pop(number)
            self._taken += 1
            self._weight -= weight
            self._changed.notify_all()
            return item, result

    def _next(self) -> int:
        return self._taken if self._in_order else next(iter(self._done), -1)

    def end(self) -> None:
        """Begin nothing more, and stop what is under way."""
        with self._changed:
            self._no_more = True
            self._changed.notify_all()
        self._stop.set()
