"""How close a workflow comes to the time its model calls alone would take, and what it costs beside them.

    python benchmarks/workflow_speed.py [--pieces 256] [--relay-pieces 24] [--at-once 64] [--latency 1.0] [--profile]

The server is a process of its own that answers every request after the latency. Side by side, the ideal is
ceil(pieces / at once) latencies and one more for the answer; one after the other, a latency for each piece and one for
the answer. In the same run the bare `openai` client makes the same calls with as long prompts: so many at once, and
when all are answered one more. Our own CPU time is this process's, all its threads (reader, model stack, notes, graph
and its state), less the bare client's. What starting takes is left out: each has made a call before.

Budgets: within 1.1 of the ideal side by side, within 1.05 one after the other, 5 ms of our own CPU a call.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import math
import os
import platform
import pstats
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lcdoc.agents.models.budget import Budget
from lcdoc.benchmarks.model_overhead import Times, bare_client, request_for
from lcdoc.benchmarks.model_overhead import timed as asked
from lcdoc.benchmarks.shapes import ONLY_ONCE, QUESTION, SHAPES, readers_for, shelve
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.tests.servers.server_process import ServerProcess
from lcdoc.workflows.workflow import run

FAN_BUDGET, RELAY_BUDGET, CPU_BUDGET_MS = 1.1, 1.05, 5.0
_PROMPT_CHARACTERS = 2_500
_READING = {
    "found": True,
    "quotes": [ONLY_ONCE],
    "rationale": "It is said there.",
    "claim": "The lock-keeper counts boats.",
    "confidence": 3,
}
_ANSWER = {"claims": [{"text": "The lock-keeper counts boats.", "evidence": [1]}]}
ANSWER = json.dumps(_READING | _ANSWER)
"""Fits the schemas of both skills where fields of the other are passed over."""


@dataclass(frozen=True)
class Timing:
    """Of one run."""

    calls: int
    wall_s: float
    cpu_ms_a_call: float


async def bare(pieces: int, url: str, at_once: int) -> Timing:
    """The same by the client alone: a call for each piece, and when all are answered, one more."""
    client, ask = bare_client(url)
    times = Times()
    await asked(Times(), ask, [request_for(-1, _PROMPT_CHARACTERS)], 1)
    wall = time.perf_counter()
    await asked(times, ask, [request_for(number, _PROMPT_CHARACTERS) for number in range(pieces)], at_once)
    pieces_cpu_ms = times.cpu[0]
    await asked(Times(), ask, [request_for(pieces, _PROMPT_CHARACTERS)], 1)
    wall_s = time.perf_counter() - wall
    await client.close()
    return Timing(pieces + 1, wall_s, pieces_cpu_ms)


async def timed(library: Library, document: Document, shape: str, url: str, at_once: int) -> Timing:
    """Run it, through a model that has been asked before."""
    stack, readers = readers_for(library, url, at_once=at_once)
    async with stack:
        workflow = SHAPES[shape](library, None, readers)  # type: ignore[arg-type]  # these search nothing
        wall, cpu = time.perf_counter(), time.process_time()
        answer = await run(workflow, QUESTION, [document], budget=Budget())
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    if answer.partial:
        raise RuntimeError(f"{shape}: {answer.warnings}")
    return Timing(answer.usage.calls, wall_s, 1000 * cpu_s / max(1, answer.usage.calls))


def main() -> int:
    """Print a line for each shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pieces", type=int, default=256, help="side by side")
    parser.add_argument("--relay-pieces", type=int, default=24, help="one after the other")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--latency", type=float, default=1.0, help="of the server, in seconds")
    parser.add_argument("--profile", action="store_true", help="show where this thread's time goes")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    mix = {"answer": {"kind": "Echo", "template": ANSWER, "first_s": arguments.latency}}
    held = True
    for shape, pieces, budget in (
        ("fan", arguments.pieces, FAN_BUDGET),
        ("relay", arguments.relay_pieces, RELAY_BUDGET),
    ):
        with (
            tempfile.TemporaryDirectory() as folder,
            ServerProcess(mix) as server,
            Library.open(Path(folder) / "library.sqlite") as library,
        ):
            warm = shelve(library, Path(folder), 1)
            document = shelve(library, Path(folder), pieces)
            asyncio.run(timed(library, warm, shape, server.url, arguments.at_once))
            profile = cProfile.Profile()
            if arguments.profile:
                profile.enable()
            found = asyncio.run(timed(library, document, shape, server.url, arguments.at_once))
            profile.disable()
            peer = asyncio.run(bare(pieces, server.url, arguments.at_once if shape == "fan" else 1))
        rounds = math.ceil(pieces / arguments.at_once) if shape == "fan" else pieces
        ideal_s = (rounds + 1) * arguments.latency
        share = found.wall_s / ideal_s
        own_ms = found.cpu_ms_a_call - peer.cpu_ms_a_call
        held = held and share <= budget and own_ms <= CPU_BUDGET_MS
        print(
            f"  {shape:6} {found.calls:>4} calls: {found.wall_s:6.2f} s, ideal {ideal_s:6.2f} s: {share:.3f} of it"
            f" (budget {budget:g}; bare client {peer.wall_s:.2f} s)\n"
            f"         CPU a call {found.cpu_ms_a_call:.2f} ms, bare client {peer.cpu_ms_a_call:.2f} ms: our own"
            f" {own_ms:.2f} ms (budget {CPU_BUDGET_MS:g})"
        )
        if arguments.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    print("budgets held" if held else "budgets NOT held")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
