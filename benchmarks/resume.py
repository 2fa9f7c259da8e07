"""Kill a run with SIGKILL at moments chosen by chance, go on with it, and compare with a run left alone.

    python benchmarks/resume.py [--moments 30] [--pieces 200] [--shapes fan relay map_reduce chain] [--seed 1]

The run is a process of its own; its model is a server in this one, which reads what it is sent (tests/servers/
truthful.py). A moment is a number of requests that have come, and a few milliseconds. What must hold each time: the
answer equals that of the run left alone (usage aside), and going on sends exactly the calls that were not stored when
the process died: none that was paid for and kept is sent again, and none is left out.

All runs of a shape begin with copies of one library. The codes around data (agents/prompts/fence.py) follow from a
library's secret, and their estimated tokens from the codes: in another library the same notes may be packed into one
merge more or less.

Exit code 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcdoc.agents.models.budget import Budget
from lcdoc.benchmarks.shapes import QUESTION, SHAPES, chunks_for, readers_for, shelve, window_for, workflow_named
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Event
from lcdoc.workflows.workflow import ignore_events, run

AT_ONCE = 4


@dataclass(frozen=True)
class Trial:
    """One kill, and what came of going on."""

    stored: int
    """Calls in the store when the process was dead."""
    sent: int
    """Requests that going on sent."""
    answer: dict[str, Any]


def read(library: Library, shape: str, url: str, on_event: Callable[[Event], None] = ignore_events) -> Answer:
    """Answer from the library's only document; goes on with a run that was cut off."""

    async def answered() -> Answer:
        stack, readers = readers_for(library, url, at_once=AT_ONCE, window=window_for(shape))
        async with stack:
            (entry,) = library.list()
            workflow = workflow_named(shape)(library, None, readers)  # type: ignore[arg-type]  # these search nothing
            return await run(workflow, QUESTION, [library.get(entry.id)], budget=Budget(), on_event=on_event)

    return asyncio.run(answered())


def prepare(folder: Path, *, shape: str, pieces: int) -> Path:
    """The library that runs begin with, a copy each, so that their requests are the same to the byte."""
    path = folder / "library.sqlite"
    with Library.open(path) as library:
        shelve(library, folder, chunks_for(shape, pieces))
        # Made where it is first asked for: the copies are to share it.
        library.secret()
    return path


def killed_and_resumed(server: ChatServer, path: Path, *, shape: str, moments: list[tuple[int, float]]) -> Trial:
    """Kill a run, and each that goes on with it, when so many requests have come and so many seconds passed."""
    for requests, after_s in moments:
        _kill_one(server, path, shape, requests, after_s)
    with Library.open(path) as library:
        stored, seen = _stored(library), len(server.requests)
        answer = read(library, shape, server.url)
        return Trial(stored, len(server.requests) - seen, comparable(answer))


def _kill_one(server: ChatServer, library: Path, shape: str, requests: int, after_s: float) -> None:
    seen = len(server.requests)
    command = [sys.executable, __file__, "--child", str(library), "--url", server.url, "--shapes", shape]
    child = subprocess.Popen(command)
    try:
        server.wait_for(lambda: len(server.requests) >= seen + requests or child.poll() is not None, 60)
        time.sleep(after_s)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    server.wait_for(lambda: not server.open_now)


def undisturbed(server: ChatServer, path: Path, *, shape: str) -> Trial:
    """A run left alone."""
    with Library.open(path) as library:
        seen = len(server.requests)
        answer = read(library, shape, server.url)
        return Trial(_stored(library), len(server.requests) - seen, comparable(answer))


def comparable(answer: Answer) -> dict[str, Any]:
    """The answer without what differs between equal runs: usage, the run's id, the folder."""
    value = answer.to_json()
    return {name: value[name] for name in value if name not in ("usage", "run_id", "documents")}


@contextmanager
def _copied(library: Path) -> Iterator[Path]:
    """A copy of a library that nobody has open, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copy(library, folder))


def _stored(library: Library) -> int:
    with library.database.read() as connection:
        (calls,) = connection.execute("SELECT count(*) FROM calls").fetchone()
    return int(calls)


def main() -> int:
    """Print a line for each moment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=30)
    parser.add_argument("--pieces", type=int, default=200)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="fan, relay, or a real one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with Library.open(arguments.child) as library:
            read(library, arguments.shapes[0], arguments.url)
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    chance, wrong = random.Random(arguments.seed), 0
    share = arguments.moments // len(arguments.shapes)
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            original = prepare(Path(folder), shape=shape, pieces=arguments.pieces)
            with _copied(original) as path, ChatServer() as server:
                server.default = Truthful(latency_s=0.005)
                alone = undisturbed(server, path, shape=shape)
            print(f"{shape}: {arguments.pieces} pieces, {alone.sent} calls when left alone")
            for _ in range(share):
                moment = (chance.randint(0, alone.sent), chance.random() / 100)
                with _copied(original) as path, ChatServer() as server:
                    server.default = Truthful(latency_s=0.005)
                    trial = killed_and_resumed(server, path, shape=shape, moments=[moment])
                holds = trial.answer == alone.answer and trial.sent == alone.sent - trial.stored
                wrong += not holds
                print(
                    f"  killed at request {moment[0]:>3} and {1000 * moment[1]:4.1f} ms: {trial.stored:>3} calls"
                    f" stored, {trial.sent:>3} sent to go on: {'holds' if holds else 'DOES NOT HOLD'}"
                )
    print("all hold" if not wrong else f"{wrong} do not hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
