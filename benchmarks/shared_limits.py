"""What sharing costs: purses and rate limits over processes, beside one process that has them for itself, in one run.

    python benchmarks/shared_limits.py [--calls 2000] [--at-once 64] [--processes 4] [--seconds 12]

`cost of a call` is what a call that is sent at once pays, one after the other and many at a time; nothing is asked.
`waiting` is the processor time of a process whose requests wait for turns that others have. The rest asks a server, a
process of its own, that takes half a second: several processes together, and one by itself, within the same
limits. Fairness is Jain's index over what the processes got while all had something to send (1: all the same); in the
last row, one of them sends ten times as many at a time as each of the others.

Budgets: 1 ms of the processor for a call's limits, 2 ms for its purse; throughput within 1.1x of one process alone;
fairness over 0.95.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.limiter import Limiter, Turns
from lcdoc.agents.models.machine_limits import MachineLimits
from lcdoc.agents.models.model import Message, ModelSpec, RateLimits, Request, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.shared_limits import SharedLimiter
from lcdoc.agents.models.stack import ModelStack
from lcdoc.memory import Library
from lcdoc.memory.spending import Caps, Spending
from lcdoc.tests.servers.server_process import ServerProcess

ANSWER_S = 0.5
LIMITS_MS, PURSE_MS, THROUGHPUT, FAIRNESS = 1.0, 2.0, 1.1, 0.95
AMPLE = RateLimits(10**9, 10**12, 10**6)
"""Limits that nobody reaches: all that is measured is what asking costs."""


@dataclass(frozen=True)
class Cost:
    """Of a call, in milliseconds: the time that passes, and the processor's, all threads together."""

    wall: float
    cpu: float


async def each_ms(call: Callable[[], Awaitable[None]], calls: int, at_once: int) -> Cost:
    """Milliseconds per call."""

    async def some() -> None:
        for _ in range(calls // at_once):
            await call()

    start, start_cpu, made = time.perf_counter(), time.process_time(), calls // at_once * at_once
    await asyncio.gather(*(some() for _ in range(at_once)))
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return Cost(1_000 * wall / made, 1_000 * cpu / made)


async def limits_ms(turns: Turns, calls: int, at_once: int) -> Cost:
    """What a turn costs that is had at once."""

    async def call() -> None:
        async with turns.slot(1_000) as slot:
            slot.used(500)

    await call()
    return await each_ms(call, calls, at_once)


async def purse_ms(library: Library, caps: Caps, per_document: Caps, calls: int, at_once: int) -> Cost:
    """What a reservation costs that is made and settled, in one account or in two."""
    purse = library.purses.open("job", caps, per_document)
    with purse.at_work(1):
        one = purse.of_document(1)
        if one is None:
            raise ValueError("nothing is capped")

        async def call() -> None:
            one.settle(await one.reserve(Spending(10**9, 5_000, 1)), Spending(10**8, 1_000, 1))

        await call()
        return await each_ms(call, calls, at_once)


async def waiting_cpu(path: Path, seconds: float) -> float:
    """Processor time, as a part of one processor, of a process whose requests wait."""
    shared, limits = MachineLimits(path), RateLimits(concurrency=1)
    other, waiting = SharedLimiter(shared, "waiting", limits), SharedLimiter(shared, "waiting", limits)

    async def wait() -> None:
        async with waiting.slot():
            pass

    async with other.slot():
        tasks = [asyncio.create_task(wait()) for _ in range(64)]
        start = time.process_time()
        await asyncio.sleep(seconds)
        used = time.process_time() - start
    await asyncio.gather(*tasks)
    return used / seconds


async def ask(told: dict[str, object]) -> list[float]:
    """Ask for as long as told, so many at once; when the answers came, in seconds from the beginning."""
    spec = ModelSpec("m", 8_192, server=Server(str(told["url"]), "m"), limits=RateLimits(**told["limits"]))  # type: ignore[arg-type]
    shared = MachineLimits(Path(str(told["path"]))) if told["path"] else None
    answered: list[float] = []
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        chosen, request = Chosen(spec, None, ()), Request((Message("user", "what is it?"),), max_tokens=20)
        async with ModelStack(chosen, library) as alone, ModelStack(chosen, library, shared=shared) as stack:
            # What is imported and connected at the first call is not what is measured.
            await alone.for_run(Ledger(), store="off").complete(request)
            model = stack.for_run(Ledger(), store="off")
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)
            start = time.monotonic()
            end = start + float(str(told["seconds"]))

            async def one() -> None:
                while time.monotonic() < end:
                    await model.complete(request)
                    answered.append(time.monotonic() - start)

            await asyncio.gather(*(one() for _ in range(int(str(told["at_once"])))))
    return answered


def together(told: Sequence[dict[str, object]]) -> list[list[float]]:
    """What each of several processes got, all begun at the same moment."""
    command = [sys.executable, str(Path(__file__).resolve()), "--ask"]
    processes = [
        subprocess.Popen([*command, json.dumps(one)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for one in told
    ]
    for process in processes:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("a process did not get ready")
    for process in processes:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in processes]


def jain(counts: Sequence[int]) -> float:
    """Jain, Chiu and Hawe, 1984."""
    return sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts))


def inside(answered: Sequence[float], seconds: float) -> int:
    """Answers of the later half: what may be used at once at the beginning of a minute is not what is measured."""
    return sum(seconds / 2 <= at < seconds for at in answered)


def throughput(folder: Path, processes: int, seconds: float) -> bool:
    """Print one process alone beside several together."""
    held = True
    cases: tuple[tuple[str, dict[str, int]], ...] = (
        ("8 at once", {"concurrency": 8}),
        ("600 a minute", {"concurrency": 200, "requests_per_minute": 600}),
    )
    print(f"\n{'limit':<16} {'who':<28} {'answers/s':>10} {'fairness':>9}")
    with ServerProcess({"answer": {"kind": "Fill", "first_s": ANSWER_S}}) as server:
        for name, limits in cases:
            base = {"url": server.url, "limits": limits, "seconds": seconds}
            (alone,) = together([{**base, "path": "", "at_once": 16}])
            own = inside(alone, seconds) / (seconds / 2)
            print(f"{name:<16} {'one process, by itself':<28} {own:>10.1f}")
            for who, widths in (
                (f"{processes} processes", [16] * processes),
                ("one of them with 10x as many", [40, *[4] * (processes - 1)]),
            ):
                path = str(folder / f"{len(name)}-{len(who)}.sqlite")
                got = together([{**base, "path": path, "at_once": width} for width in widths])
                counts = [inside(answers, seconds) for answers in got]
                everything, fairness = sum(counts) / (seconds / 2), jain(counts)
                held = held and everything * THROUGHPUT >= own and fairness >= FAIRNESS
                print(f"{'':<16} {who:<28} {everything:>10.1f} {fairness:>9.3f}")
    return held


def cost(folder: Path, calls: int, at_once: int) -> bool:
    """Print what a call costs that is sent at once."""
    shared = MachineLimits(folder / "limits.sqlite")
    held = True
    print(
        f"{'cost of a call, ms':<34} {'one by one':>11} {'processor':>10} {f'{at_once} at once':>11} {'processor':>10}"
    )

    def row(name: str, costs: Sequence[Cost], budget_ms: float | None) -> None:
        nonlocal held
        held = held and (budget_ms is None or max(cost.cpu for cost in costs) <= budget_ms)
        print(f"{name:<34} " + " ".join(f"{cost.wall:>11.3f} {cost.cpu:>10.3f}" for cost in costs))

    widths = (1, at_once)
    row("limits, one process by itself", [asyncio.run(limits_ms(Limiter(AMPLE), calls, w)) for w in widths], None)
    figures = [asyncio.run(limits_ms(SharedLimiter(shared, "cost", AMPLE), calls, w)) for w in widths]
    row("limits, shared", figures, LIMITS_MS)
    lavish = Caps(cost=10**18, tokens=10**15)
    for name, per_document in (("purse, the job's", Caps()), ("purse, the job's and a document's", lavish)):
        figures = []
        for width in widths:
            with Library.open(folder / "library.sqlite") as library:
                figures.append(asyncio.run(purse_ms(library, lavish, per_document, calls, width)))
        row(name, figures, PURSE_MS)
    used = asyncio.run(waiting_cpu(folder / "waiting.sqlite", 3.0))
    print(f"waiting: {100 * used:.1f} % of a processor")
    return held


def main() -> int:
    """Measure and print. 1 where a budget is not held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=12.0, help="for which each case is asked")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        sys.stdout.write(json.dumps(asyncio.run(ask(json.loads(arguments.ask)))))
        return 0
    machine = f"{platform.platform()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        held = cost(Path(folder), arguments.calls, arguments.at_once)
        held = throughput(Path(folder), arguments.processes, arguments.seconds) and held
    print(f"budgets: {'held' if held else 'not held'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
