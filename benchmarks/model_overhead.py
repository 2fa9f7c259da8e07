"""What our layers add to a model call: the whole stack beside the bare `openai` client, in one run.

    python benchmarks/model_overhead.py [--calls 1000] [--rounds 5] [--at-once 64] [--profile]

Both send the same streaming requests, so many at once, to the same server, which is a process of its own and answers
at once. Rounds alternate; medians are printed. CPU time is this process's, all its threads included. `own client` is
the innermost layer alone, which reads the stream itself; `stack` counts, reserves, limits, parses, checks and stores
every answer; `store off` is the same without the call store; `stored` is a second question about what was answered.

Budget: 2 ms of our own for a call.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import platform
import pstats
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.model import ChatModel, Message, ModelSpec, Prices, RateLimits, Request, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.wire import FormattedRequest
from lcdoc.memory import Library
from lcdoc.tests.servers.server_process import ServerProcess

BUDGET_MS = 2.0
_KEY = "sk-overhead-not-a-secret"
_WORDS = Path(__file__).read_text(encoding="utf-8").split()
ANSWER = (
    '{"found": true, "quotes": ["The ferry keeps its own time, and the bell-ringers travel free because they wake the '
    'pilot.", "On the last day of the month the tithe is paid in salt."], '
    '"claim": "They wake the pilot, so they travel free.", "confidence": 4}'
)
Ask = Callable[[Request], Awaitable[object]]


class Note(BaseModel):
    """About what a reader writes down."""

    found: bool
    quotes: list[str] = Field(max_length=8)
    claim: str = Field(max_length=500)
    confidence: int = Field(ge=0, le=5)


FORM = {"type": "json_schema", "json_schema": {"name": "Note", "schema": Note.model_json_schema(), "strict": True}}


@dataclass
class Times:
    """Milliseconds per call, one figure for each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def request_for(number: int, characters: int) -> Request:
    """A passage of its own for each number."""
    chosen = random.Random(number).choices(_WORDS, k=characters // 6)
    passage = " ".join(chosen)[:characters]
    return Request(
        (Message("system", "You read passages."), Message("user", f"call {number}\n{passage}")),
        schema=Note,
        max_tokens=400,
        prompt="overhead/1",
    )


def formatted_as(form: dict[str, Any], request: Request) -> FormattedRequest:
    """The request as the structured layer hands it on."""
    return FormattedRequest(
        request.messages, max_tokens=request.max_tokens, temperature=request.temperature, response_format=form
    )


async def timed(
    times: Times, ask: Callable[[Request], Awaitable[object]], requests: Sequence[Request], at_once: int
) -> None:
    """Ask them all, so many at once, and note how long that took."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            await ask(request)

    wall, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    times.wall.append(1000 * (time.perf_counter() - wall) / len(requests))
    times.cpu.append(1000 * (time.process_time() - cpu) / len(requests))


def bare_client(url: str) -> tuple[Any, Ask]:
    """The `openai` client, and a function that asks it and joins what it streams."""
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key=_KEY, max_retries=0)

    async def ask(request: Request) -> str:
        messages: Any = [{"role": message.role, "content": message.content} for message in request.messages]
        stream = await client.chat.completions.create(
            model="overhead",
            messages=messages,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            stream=True,
            stream_options={"include_usage": True},
            response_format=FORM,  # type: ignore[call-overload]
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        return "".join(pieces)

    return client, ask


async def measure(arguments: argparse.Namespace, url: str, library: Library) -> dict[str, Times]:
    """Times of each way of asking."""
    calls, at_once = arguments.calls, arguments.at_once
    spec = ModelSpec(
        name="overhead",
        context_window=128_000,
        server=Server(base_url=url, model="overhead"),
        prices=Prices(2.0, 8.0),
        limits=RateLimits(concurrency=at_once),
    )
    times = {name: Times() for name in ("bare openai client", "own client", "stack", "stack, store off", "stored")}
    client, ask_bare = bare_client(url)
    own = OpenAIModel(spec, Key(_KEY))
    async with ModelStack(Chosen(spec, Key(_KEY), ()), library) as stack, aclosing(own):

        def model(**settings: Any) -> ChatModel:
            return stack.for_run(Ledger(Budget(usd=1e6, tokens=10**12, calls=10**9)), **settings)

        await timed(Times(), ask_bare, [request_for(-n, 100) for n in range(1, 200)], at_once)
        await timed(Times(), model().complete, [request_for(-n, 100) for n in range(1, 200)], at_once)
        for number in range(arguments.rounds):
            requests = [request_for(number * calls + n, arguments.characters) for n in range(calls)]
            await timed(times["bare openai client"], ask_bare, requests, at_once)
            formatted = [formatted_as(FORM, request) for request in requests]
            await timed(times["own client"], own.complete, formatted, at_once)
            await timed(times["stack"], model().complete, requests, at_once)
            off = model(store="off")
            await timed(times["stack, store off"], off.complete, requests, at_once)
            await timed(times["stored"], model().complete, requests, at_once)
        if arguments.profile:
            requests = [request_for(-(10**6) - n, arguments.characters) for n in range(calls)]
            profile = cProfile.Profile()
            profile.enable()
            await timed(Times(), model().complete, requests, at_once)
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            pstats.Stats(profile).sort_stats("cumulative").print_stats("lcdoc|/agents/|/memory/", 45)
    await client.close()
    return times


def added(times: dict[str, Times], to: str) -> tuple[float, float]:
    """What the stack takes more than something else: CPU and wall, in ms a call, medians of the rounds' differences."""
    ours, theirs = times["stack"], times[to]
    cpu = statistics.median(mine - other for mine, other in zip(ours.cpu, theirs.cpu, strict=True))
    return cpu, statistics.median(mine - other for mine, other in zip(ours.wall, theirs.wall, strict=True))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--characters", type=int, default=6_000, help="of each prompt")
    parser.add_argument("--profile", action="store_true", help="show where the stack's time goes (this thread's)")
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"{arguments.rounds} rounds of {arguments.calls:,} calls, {arguments.at_once} at once; ms a call, medians")
    mix = {"answer": {"kind": "Echo", "template": ANSWER}}
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(mix) as server,
        Library.open(Path(folder) / "overhead.sqlite") as library,
    ):
        times = asyncio.run(measure(arguments, server.url, library))
    for name, found in times.items():
        wall, cpu = statistics.median(found.wall), statistics.median(found.cpu)
        print(f"  {name:20} wall {wall:6.2f}   CPU {cpu:6.2f} ({min(found.cpu):.2f} to {max(found.cpu):.2f})")
    own, own_wall = added(times, "bare openai client")
    print(f"the stack adds {own:.2f} ms CPU, {own_wall:.2f} ms wall, to the bare client; budget {BUDGET_MS:g} ms")
    print("  and {:.2f} ms CPU, {:.2f} ms wall, to our own client".format(*added(times, "own client")))
    return 0 if own < BUDGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
