"""Ten thousand calls through the whole stack of a model, with every kind of fault, and what must hold all the same.

    python benchmarks/soak.py [--calls 10000] [--at-once 64] [--parts soak caps share kill] [--seed 1]

The server is a process of its own (tests/servers/chat_server.py); what was sent and answered is taken from its
counters, not from ours. Four parts:

- `soak`: every call ends in its own answer, stored once; none that was answered is sent again; memory, connections and
  threads stay where they were; a second run sends nothing;
- `caps`: tight caps on calls, tokens, money and seconds, each held by the server's count too;
- `share`: processes with one library, each asking everything twice at the same time, send every call once;
- `kill`: a process is killed with SIGKILL in the middle; one that takes up its work sends no stored call again.

Exit code 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.errors import BudgetExceededError, ModelError
from lcdoc.agents.models.fingerprint import fingerprint
from lcdoc.agents.models.model import ChatModel, Message, ModelSpec, Prices, RateLimits, Request, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.retry import RetryPolicy
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.timeouts import Timeouts
from lcdoc.memory import Library
from lcdoc.tests.servers.server_process import ServerProcess

TIMEOUTS = Timeouts(connect_s=5.0, first_token_s=1.0, idle_s=1.5)
"""Short, since every hang costs one; long enough for an answer that lies in the socket while this process is busy."""
POLICY = RetryPolicy(
    attempts=12, connect_attempts=12, first_token_attempts=12, first_wait_s=0.02, longest_wait_s=0.5, ceiling_s=600
)
PRICES = Prices(input=2.0, output=8.0)
PASSAGE = "The ferry keeps its own time, and the bell-ringers travel free because they wake the pilot."
ANSWER = '{"key": "{key}", "pages": [3, 14], "found": true, "claim": "They wake the pilot, so they travel free."}'
FAULTS: list[dict[str, Any]] = [
    {"weight": 0.010, "kind": "Status", "code": 429, "retry_after": "0.05"},
    {"weight": 0.004, "kind": "Status", "code": 503, "retry_after": "0.05"},
    {"weight": 0.012, "kind": "Status", "code": 500},
    {"weight": 0.012, "kind": "Status", "code": 502, "body": "<html><body>Bad Gateway</body></html>"},
    {"weight": 0.006, "kind": "Status", "code": 408},
    {"weight": 0.014, "kind": "Cut", "text": '{"key": "ca'},
    {"weight": 0.008, "kind": "Cut", "text": '{"key": "ca', "reset": True},
    {"weight": 0.008, "kind": "Cut", "text": '{"key": "ca', "clean": True},
    {"weight": 0.014, "kind": "Refuse"},
    {"weight": 0.003, "kind": "Hang"},
    {"weight": 0.002, "kind": "Hang", "comments_s": 0.2},
    {"weight": 0.003, "kind": "HangMid", "text": '{"key": "ca'},
    {"weight": 0.012, "kind": "EmptyChoices"},
    {"weight": 0.010, "kind": "Garbage", "body": "the upstream went for a walk"},
    {"weight": 0.010, "kind": "ErrorEvent", "text": '{"key"'},
    {"weight": 0.008, "kind": "Nonsense", "text": "I would rather talk about ferries."},
    {"weight": 0.008, "kind": "Nonsense", "text": '{"key": 7, "pages": "none"}'},
    {"weight": 0.006, "kind": "Nonsense", "text": '{"key": "call 1", "pages": [3, ', "finish": "length"},
]


class Finding(BaseModel):
    """What every call is asked for."""

    key: str
    pages: list[int] = Field(max_length=8)
    found: bool
    claim: str = Field(max_length=200)


def request_for(number: int) -> Request:
    return Request(
        (Message("system", "You read passages and say what you find."), Message("user", f"call {number}\n{PASSAGE}")),
        schema=Finding,
        max_tokens=200,
        prompt="soak/1",
    )


def served(seed: int, *, answer_s: float = 0.02) -> ServerProcess:
    answer = {"kind": "Echo", "template": ANSWER, "first_s": answer_s}
    return ServerProcess({"answer": answer, "faults": FAULTS, "seed": seed})


def stack_for(url: str, library: Library, at_once: int) -> ModelStack:
    spec = ModelSpec(
        name="soak",
        context_window=32_768,
        server=Server(base_url=url, model="soak"),
        prices=PRICES,
        limits=RateLimits(concurrency=at_once),
    )
    return ModelStack(Chosen(spec, Key("sk-soak-not-a-secret"), ()), library, policy=POLICY, timeouts=TIMEOUTS)


@dataclass
class Report:
    """Prints what holds and what does not."""

    failed: int = 0

    def check(self, what: str, holds: bool, found: object) -> None:
        self.failed += not holds
        print(f"  {'ok    ' if holds else 'FAILED'}  {what}: {found}", flush=True)


@dataclass
class Outcomes:
    """How the calls of one pass ended."""

    answered: int = 0
    stored: set[int] = field(default_factory=set)
    wrong: int = 0
    """Answers to another call's question."""
    errors: Counter[str] = field(default_factory=Counter)
    unanswered: list[int] = field(default_factory=list)


async def ask_all(model: ChatModel, numbers: Iterable[int], at_once: int) -> Outcomes:
    """Ask every number's question, so many at once."""
    outcomes = Outcomes()
    waiting: Iterator[int] = iter(numbers)

    async def work() -> None:
        for number in waiting:
            try:
                completion = await model.complete(request_for(number))
            except ModelError as error:
                outcomes.errors[type(error).__name__] += 1
                outcomes.unanswered.append(number)
                continue
            outcomes.answered += 1
            outcomes.wrong += completion.parsed_as(Finding).key != f"call {number}"
            if completion.stored:
                outcomes.stored.add(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return outcomes


async def ask_persistently(model: ChatModel, numbers: Iterable[int], at_once: int) -> list[Outcomes]:
    """Ask all, and those that failed again, as a user would who starts the run anew; one outcome for each pass."""
    passes = [await ask_all(model, numbers, at_once)]
    while passes[-1].unanswered and len(passes) < 4:
        passes.append(await ask_all(model, passes[-1].unanswered, at_once))
    return passes


@dataclass(frozen=True)
class Sample:
    """This process at one moment."""

    answered: int
    resident_mb: float
    sockets: int
    threads: int
    tasks: int


def sockets_open() -> int:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return sum(link.startswith("socket:") for link in links)


def sample(answered: int) -> Sample:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    resident_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Sample(answered, resident_mb, sockets_open(), threading.active_count(), len(asyncio.all_tasks()))


async def watch(samples: list[Sample], ledger: Ledger) -> None:
    """Take samples until cancelled."""
    while True:
        await asyncio.sleep(0.5)
        samples.append(sample(ledger.total().calls))


async def soak(report: Report, calls: int, at_once: int, seed: int, folder: Path) -> None:
    """Every call answered, once."""
    print(f"soak: {calls:,} calls, {at_once} at once, {sum(fault['weight'] for fault in FAULTS):.1%} faults")
    samples: list[Sample] = []
    sockets_before = sockets_open()
    with served(seed) as server, Library.open(folder / "soak.sqlite") as library:
        async with stack_for(server.url, library, at_once) as stack:
            ledger = Ledger(Budget())
            watching = asyncio.create_task(watch(samples, ledger))
            start = time.monotonic()
            passes = await ask_persistently(stack.for_run(ledger), range(calls), at_once)
            seconds = time.monotonic() - start
            watching.cancel()
            stats = await asyncio.to_thread(server.stats)
            again = Ledger(Budget(calls=0))
            repeated = await ask_all(stack.for_run(again), range(calls), at_once)
            stats_again = await asyncio.to_thread(server.stats)
        with library.reading() as connection:
            (rows,) = connection.execute("SELECT count(*) FROM calls").fetchone()
            (leases,) = connection.execute("SELECT count(*) FROM leases").fetchone()
    sockets_after = sockets_open()

    sent, played = sum(stats["received"].values()), stats["played"]
    faults = sent - played["Echo"]
    print(f"  {seconds:.0f} s, {1000 * seconds / calls:.1f} ms a call; {sent:,} requests, {faults:,} faults: {played}")
    answered = sum(one.answered for one in passes)
    report.check("every call is answered", answered == calls, f"{answered:,}")
    errors = passes[0].errors
    report.check("few were left to the caller", errors.total() <= calls // 500, dict(errors) or "none")
    wrong = sum(one.wrong for one in passes)
    report.check("every answer is to its own question", not wrong, f"{wrong} are not")
    report.check("every call is stored once", rows == calls, f"{rows:,} rows")
    report.check("no lease is left behind", not leases, leases)
    twice = sum(stats["repeated"].values())
    report.check("none is sent again that the server had answered", not twice, f"{twice} requests")
    counted = ledger.total().calls
    report.check("our count of requests is the server's", counted == sent, f"{counted:,} and {sent:,}")
    report.check("at most so many at once", stats["open_peak"] <= at_once, stats["open_peak"])
    new = sum(stats_again["received"].values()) - sent
    all_stored = len(repeated.stored) == calls and again.total().stored_calls == calls
    report.check("a second run sends nothing", all_stored and not new, f"{len(repeated.stored):,} stored, {new} sent")
    steady([one for one in samples if one.answered >= calls // 4], report, at_once, sockets_before)
    report.check("no connection is left", sockets_after <= sockets_before, f"{sockets_before}, {sockets_after} after")


def steady(samples: list[Sample], report: Report, at_once: int, sockets_before: int) -> None:
    """Memory, connections, threads and tasks stay where they were."""
    if len(samples) < 4:
        print("  too few samples to tell whether memory is flat")
        return
    start_mb, end_mb = samples[0].resident_mb, max(one.resident_mb for one in samples[-3:])
    found = f"{start_mb:.0f} MB at a quarter, {end_mb:.0f} at the end"
    report.check("memory is flat", end_mb - start_mb < 16, found)
    sockets = max(one.sockets for one in samples) - sockets_before
    report.check("connections are bounded", sockets <= at_once + 8, f"{sockets} at most")
    threads = {one.threads for one in samples}
    report.check("threads are flat", max(threads) - min(threads) <= 2, sorted(threads))
    tasks = max(one.tasks for one in samples)
    report.check("tasks are bounded", tasks <= 4 * at_once + 8, f"{tasks} at most")


async def caps(report: Report, calls: int, at_once: int, seed: int, folder: Path) -> None:
    """Caps hold by the server's own count, and are used."""
    budgets = [Budget(calls=300), Budget(tokens=60_000), Budget(usd=0.05), Budget(seconds=2.0)]
    for budget in budgets:
        print(f"caps: {budget}, {calls:,} calls wanted, {at_once} at once")
        path = folder / f"caps-{budgets.index(budget)}.sqlite"
        with served(seed) as server, Library.open(path) as library:
            async with stack_for(server.url, library, at_once) as stack:
                ledger = Ledger(budget)
                start = time.monotonic()
                outcomes = await ask_all(stack.for_run(ledger), range(calls), at_once)
                seconds = time.monotonic() - start
            stats = server.stats()
        total, sent = ledger.total(), sum(stats["received"].values())
        refused = outcomes.errors[BudgetExceededError.__name__]
        report.check("the cap was reached", refused > 0, f"{outcomes.answered:,} answered, {dict(outcomes.errors)}")
        # What broke off half way was paid for too; the server reports whole answers only.
        reported = (stats["tokens_in"], stats["tokens_out"])
        usd = (reported[0] * PRICES.input + reported[1] * PRICES.output) / 1e6
        cost = total.cost_usd or 0.0
        counts = f"{total.calls:,} of ours, {sent:,} at the server"
        if budget.calls is not None:
            report.check("calls", budget.calls * 0.9 <= total.calls == sent <= budget.calls, counts)
        if budget.tokens is not None:
            tokens = f"{total.tokens:,} of ours, {sum(reported):,} reported in whole answers"
            report.check("tokens", budget.tokens * 0.8 <= total.tokens <= budget.tokens >= sum(reported), tokens)
        if budget.usd is not None:
            money = f"${cost:.4f} of ours, ${usd:.4f} reported in whole answers"
            report.check("money", budget.usd * 0.8 <= cost <= budget.usd >= usd, money)
        if budget.seconds is not None:
            report.check("seconds", seconds < budget.seconds + 0.5, f"{seconds:.2f} s, {counts}")


def child(library: Path, url: str, calls: int, at_once: int, times: int) -> int:
    """A process that asks every call so many times at once. Writes how that ended."""

    async def run() -> list[Outcomes]:
        with Library.open(library) as opened:
            async with stack_for(url, opened, at_once) as stack:
                numbers = [number for number in range(calls) for _ in range(times)]
                return await ask_persistently(stack.for_run(Ledger(Budget())), numbers, at_once)

    passes = asyncio.run(run())
    wrong = sum(one.wrong for one in passes)
    answered = sum(one.answered for one in passes) - wrong
    json.dump({"answered": answered, "stored": sorted(passes[0].stored)}, sys.stdout)
    return 0


def child_command(library: Path, url: str, calls: int, at_once: int, *, times: int = 1) -> list[str]:
    settings = {"--calls": calls, "--at-once": at_once, "--times": times}
    options = [str(part) for setting in settings.items() for part in setting]
    return [sys.executable, __file__, "--child", str(library), url, *options]


def share(report: Report, calls: int, at_once: int, seed: int, folder: Path) -> None:
    """Several processes, one library, the same calls at the same time."""
    processes, times = 3, 2
    print(f"share: {calls:,} calls, each asked {times} times by each of {processes} processes at once")
    with served(seed) as server:
        command = child_command(folder / "share.sqlite", server.url, calls, at_once, times=times)
        running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
        results = [json.loads(process.communicate()[0] or b'{"answered": 0}') for process in running]
        stats = server.stats()
    answered = [result["answered"] for result in results]
    report.check("every process has all answers", answered == [times * calls] * processes, answered)
    once = all(stats["answered"].get(f"call {number}") == 1 for number in range(calls))
    report.check("every call is answered once", once, f"{sum(stats['answered'].values()):,} answers")
    twice = sum(stats["repeated"].values())
    report.check("none is sent again that the server had answered", not twice, f"{twice} requests")


def kill(report: Report, calls: int, at_once: int, seed: int, folder: Path) -> None:
    """A process is killed in the middle, and its work taken up."""
    print(f"kill: {calls:,} calls, SIGKILL after about a third of them")
    library = folder / "kill.sqlite"
    with served(seed) as server:
        command = child_command(library, server.url, calls, at_once)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while sum(server.stats()["answered"].values()) < calls // 3 and process.poll() is None:
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        while (before := server.stats())["open_now"]:
            time.sleep(0.05)
        with Library.open(library) as opened:
            spec = stack_for(server.url, opened, at_once).spec
            kept = {n for n in range(calls) if opened.calls.get(fingerprint(spec, request_for(n))) is not None}
        resumed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        after = server.stats()
    result: Any = json.loads(resumed.stdout) if resumed.returncode == 0 else {"answered": 0, "stored": []}
    answered = sum(before["answered"].values())
    report.check(
        "it was killed in the middle", calls // 4 < answered < calls, f"{answered:,} answered, {len(kept):,} kept"
    )
    lost = answered - len(kept)
    report.check("only answers that were under way are lost", 0 <= lost <= at_once, f"{lost} of at most {at_once}")
    report.check("the second process has all answers", result["answered"] == calls, f"{result['answered']:,}")
    report.check("it took every kept one from the store", kept == set(result["stored"]), f"{len(result['stored']):,}")
    again = [n for n in kept if after["received"].get(f"call {n}") != before["received"].get(f"call {n}")]
    report.check("no kept call was sent again", not again, len(again))


def main() -> int:
    """Print what holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=64)
    parts = ["soak", "caps", "share", "kill"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=2, metavar=("LIBRARY", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    calls, at_once, seed = arguments.calls, arguments.at_once, arguments.seed
    if arguments.child:
        return child(Path(arguments.child[0]), arguments.child[1], calls, at_once, arguments.times)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        if "soak" in arguments.parts:
            asyncio.run(soak(report, calls, at_once, seed, Path(folder)))
        if "caps" in arguments.parts:
            asyncio.run(caps(report, min(calls, 1_000), at_once, seed, Path(folder)))
        if "share" in arguments.parts:
            share(report, min(calls, 1_000), at_once, seed, Path(folder))
        if "kill" in arguments.parts:
            kill(report, min(calls, 2_000), at_once, seed, Path(folder))
    print(f"{report.failed} checks failed" if report.failed else "all of it holds")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
