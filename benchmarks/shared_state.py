"""What state that machines share costs on a PostgreSQL server, beside the library's own SQLite file.

    python benchmarks/shared_state.py [--each 300] [--folder DIR]

The server is started here, with its data in the same folder as the SQLite file and its settings as they come: what is
committed is on the disk. It is reached over loopback, so a network's round trips come on top: the column `trips` says
how many of them each thing waits for. Medians in ms of `--each` times, one after another; `64 at once`: each of 64
under way together.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lcdoc.memory import Call, Library
from lcdoc.tests.servers.postgres import PostgresServer

AT_ONCE = 64
_WORDS = " ".join(Path(__file__).read_text(encoding="utf-8").split())
_ROW = {"schema": "lcdoc.result/1", "answer": _WORDS[:1500], "claims": [{"quote": _WORDS[:900]}], "found": True}
_CALL = Call(text=_WORDS[:1200], model="gpt", base_url="http://127.0.0.1/v1", prompt="read/1", tokens_in=3000)


async def median_ms(each: int, action: Callable[[int], Awaitable[Any]]) -> float:
    """Of so many, one after another, after a few that do not count."""
    times: list[float] = []
    for number in range(each + 20):
        begun = time.perf_counter()
        await action(number)
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times[20:])


def trips(library: Library, action: Callable[[], Any]) -> int | None:
    """How often the server is waited for; None for a file."""
    if library.shared is None:
        return None
    import psycopg

    number, execute, executemany = 0, psycopg.Cursor.execute, psycopg.Cursor.executemany

    def counted(inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal number
            number += 1
            return inner(*given, **named)

        return call

    psycopg.Cursor.execute, psycopg.Cursor.executemany = counted(execute), counted(executemany)  # type: ignore[method-assign]
    try:
        action()
        return number
    finally:
        psycopg.Cursor.execute, psycopg.Cursor.executemany = execute, executemany  # type: ignore[method-assign]


class Measured:
    """What is done again and again in one library."""

    def __init__(self, library: Library, each: int) -> None:
        self.library = library
        self.job = library.jobs.create({}, tasks=each + 40)
        library.jobs.add_documents(self.job, ["folder/lease.pdf"])
        self.worker = library.jobs.register(self.job)
        work = library.jobs.claim_document(self.job, self.worker)
        if work is None:
            raise RuntimeError("no document")
        library.jobs.ready(work, document_id="d" * 32, name="lease.pdf", pages=9, characters=27_000, seconds=0.2)

    async def task(self, _number: int) -> None:
        self.do_task()

    def do_task(self) -> None:
        (task,) = self.library.jobs.claim(self.job, self.worker)
        if not self.library.jobs.keep(task, _ROW, seconds=0.1):
            raise RuntimeError("a lease was lost")

    async def call(self, number: int, kind: str = "one") -> None:
        """What a call adds to its model: look it up, take the lease, keep the answer."""
        key = f"{kind}/{number}"
        if self.library.calls.get(key) is not None or await self.library.calls.claim(key) is not True:
            raise RuntimeError("the call was made before")
        await self.library.calls.put(key, _CALL)

    async def calls_at_once(self, number: int) -> None:
        await asyncio.gather(*(self.call(number * AT_ONCE + one, "many") for one in range(AT_ONCE)))

    async def kept(self, number: int) -> None:
        if self.library.calls.get(f"one/{number}") is None:
            raise RuntimeError("the call was not kept")


async def figures(measured: Measured, each: int) -> dict[str, tuple[float, int | None]]:
    """Milliseconds and round trips."""
    task = await median_ms(each, measured.task)
    call = await median_ms(each, measured.call)
    many = await median_ms(max(3, each // AT_ONCE), measured.calls_at_once)
    kept = await median_ms(each, measured.kept)
    return {
        "claim a task and keep its result": (task, trips(measured.library, measured.do_task)),
        "a call: look up, lease, keep": (call, None),
        f"the same, {AT_ONCE} at once": (many / AT_ONCE, None),
        "a call that was kept": (kept, trips(measured.library, lambda: measured.library.calls.get("one/0"))),
    }


def main() -> int:
    """Print a line for each thing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where the data lies")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    columns: list[dict[str, tuple[float, int | None]]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        server = stack.enter_context(PostgresServer(durable=True))
        for name, url in (("file", None), ("server", server.database())):
            with Library.open(folder / f"{name}.sqlite", shared=url) as library:
                columns.append(asyncio.run(figures(Measured(library, arguments.each), arguments.each)))
    print(f"{'':36} {'SQLite':>8} {'PostgreSQL':>11} {'trips':>6}")
    for name, (file_ms, _) in columns[0].items():
        server_ms, number = columns[1][name]
        print(f"{name:36} {file_ms:8.2f} {server_ms:11.2f} {'' if number is None else number:>6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
