"""What a run leaves in its files for each model call: the graph's state, and the notes and events.

    python benchmarks/workflow_state.py [--pieces 1000] [--workflows fan relay map_reduce chain]

Each workflow reads a document of about so many pieces through a server that answers at once: the two bare shapes a
chunk a piece, the real ones through a window so small that ten chunks fill it. `state` is the largest that the
checkpoints' file and its log have been while the run was under way. Notes and events are the library's own rows, which
stay for the trace; stored calls are told beside them.

Budget: less than 2 KB of state for a call. Exit code 1 if it is not held.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lcdoc.agents.models.budget import Budget
from lcdoc.benchmarks.shapes import QUESTION, SHAPES, chunks_for, readers_for, shelve, window_for, workflow_named
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Answered, Event
from lcdoc.workflows.search import Search

BUDGET_BYTES = 2048
AT_ONCE = 32


@dataclass
class Sizes:
    """Bytes, of one run."""

    calls: int
    state_peak: int
    notes: int
    events: int
    stored_calls: int


async def measured(library: Library, name: str, url: str) -> tuple[Answer, int]:
    """The answer, and how large the state's files were at most."""
    stack, readers = readers_for(library, url, at_once=AT_ONCE, window=window_for(name))
    peak = 0
    async with stack:
        (entry,) = library.list()
        search: Search = None  # type: ignore[assignment]  # these read everything, and search nothing
        workflow = workflow_named(name)(library, search, readers)
        events: list[Event] = []
        async for event in workflow.stream(QUESTION, [library.get(entry.id)], budget=Budget()):
            events.append(event)
            peak = max(peak, _state_bytes(library))
    last = events[-1]
    if not isinstance(last, Answered):
        raise RuntimeError(f"{name} ended without an answer")
    return last.answer, peak


def sizes(name: str, pieces: int, url: str) -> Sizes:
    """Run it over a document of its own."""
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        shelve(library, Path(folder), chunks_for(name, pieces))
        answer, peak = asyncio.run(measured(library, name, url))
        library.runs.list(1)
        with library.database.read() as connection:
            notes, events, stored = (
                connection.execute(f"SELECT coalesce(sum(length({column})), 0) FROM {table}").fetchone()[0]
                for table, column in (("notes", "note"), ("events", "fields"), ("calls", "answer"))
            )
        return Sizes(answer.usage.calls, peak, notes, events, stored)


def _state_bytes(library: Library) -> int:
    path = library.checkpoints_path
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())


def main() -> int:
    """Print a line for each workflow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pieces", type=int, default=1_000)
    parser.add_argument("--workflows", nargs="+", default=list(SHAPES))
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{arguments.pieces:,} pieces; bytes a call")
    held = True
    with ChatServer(keeps_requests=False) as server:
        server.default = Truthful()
        for name in arguments.workflows:
            found = sizes(name, arguments.pieces, server.url)
            calls = max(1, found.calls)
            held = held and found.state_peak / calls < BUDGET_BYTES
            print(
                f"  {name:10} {found.calls:>5} calls: state {found.state_peak / calls:7,.0f}   notes"
                f" {found.notes / calls:5,.0f}   events {found.events / calls:5,.0f}   stored calls"
                f" {found.stored_calls / calls:5,.0f}   (state file at most {found.state_peak / 1024:,.0f} KB)"
            )
    print(f"budget {BUDGET_BYTES:,} bytes of state a call: {'held' if held else 'NOT HELD'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
