"""A run begun on one machine goes on on another, from the checkpoint and the notes they share."""

import asyncio
import logging
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

import pytest

pytest.importorskip("psycopg")

from langgraph.graph import START, StateGraph

from lcdoc.agents.models.budget import Budget
from lcdoc.benchmarks.resume import comparable, read
from lcdoc.benchmarks.shapes import QUESTION, SHAPES, readers_for, shelve
from lcdoc.memory import Library
from lcdoc.memory.leases import LEASE_S
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.postgres import PASSWORD, PostgresServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows.events import Event, NoteTaken, Resumed

PIECES = 20
CHILD = """
import socket, sys
socket.gethostname = lambda: "another-node"  # before anybody asks
from lcdoc.benchmarks.resume import read
from lcdoc.memory import Library
with Library.open(sys.argv[1]) as library:
    read(library, sys.argv[2], sys.argv[3])
"""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        running.default = Truthful(latency_s=0.01)
        yield running


@pytest.fixture
def library(shared: str, tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "here.sqlite", shared=shared) as opened:
        shelve(opened, tmp_path, PIECES)
        yield opened


def alone(server: ChatServer, library: Library, shape: str) -> tuple[dict, int]:
    """What a run left alone answers, in a library of its own with the same prompts, and how many calls it takes."""
    with Library.open(library.path.with_name("alone.sqlite")) as other:
        shelve(other, library.path.parent, PIECES)
        other._secret = library.secret()
        seen = len(server.requests)
        return comparable(read(other, shape, server.url)), len(server.requests) - seen


def rows(library: Library) -> list[int]:
    with library.shared.read() as connection:
        return [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("calls", "checkpoints", "checkpoint_writes", "checkpoint_blobs")
        ]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_killed_on_one_machine_goes_on_on_another(server, shared, library, tmp_path):
    shape = "relay"
    expected, calls = alone(server, library, shape)
    there = tmp_path / "there.sqlite"
    with Library.open(there) as elsewhere:
        shelve(elsewhere, tmp_path, PIECES)
    seen = len(server.requests)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, there, shape, server.url], env={**os.environ, "LCDOC_SHARED": shared}
    )
    try:
        server.wait_for(lambda: len(server.requests) >= seen + 9 or child.poll() is not None, 60)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    server.wait_for(lambda: not server.open_now)
    (cut_off,) = library.runs.list()
    assert cut_off.status == "running"  # for all that can be told from here, so soon
    with library.shared.write() as connection:
        connection.execute("UPDATE leases SET expires_at = expires_at - ?", (LEASE_S + 1,))

    stored, states, *_ = rows(library)
    assert 5 <= stored < calls
    assert states == 1
    seen = len(server.requests)
    events: list[Event] = []
    answer = read(library, shape, server.url, events.append)
    assert [event.run_id for event in events if isinstance(event, Resumed)] == [answer.run_id] == [cut_off.id]
    assert comparable(answer) == expected
    assert len(server.requests) - seen == calls - stored
    assert rows(library)[1:] == [0, 0, 0]


def test_a_run_outlives_a_crash_of_the_database(server, postgres: PostgresServer, library):
    shape = "fan"
    expected, calls = alone(server, library, shape)
    noted = 0

    def crash_once(event: Event) -> None:
        nonlocal noted
        noted += isinstance(event, NoteTaken)
        if isinstance(event, NoteTaken) and noted == 5:
            postgres.stop(at_once=True)
            postgres.start()

    seen = len(server.requests)
    assert comparable(read(library, shape, server.url, crash_once)) == expected
    assert noted == PIECES
    assert len(server.requests) - seen == calls
    assert rows(library) == [calls, 0, 0, 0]


class Walk(TypedDict):
    steps: Annotated[list[int], operator.add]


def test_only_the_latest_state_is_kept(library):
    seen: list[list[int]] = []

    async def walk() -> dict:
        async def step(state: Walk) -> dict:
            seen.append(rows(library)[1:])
            return {"steps": [len(state["steps"])]}

        graph = StateGraph(Walk)
        graph.add_sequence([(f"step{n}", step) for n in range(12)])
        graph.add_edge(START, "step0")
        async with library.checkpoints() as saver:
            app = graph.compile(checkpointer=saver)
            config: Any = {"configurable": {"thread_id": "walk"}}
            await app.ainvoke({"steps": []}, config, durability="sync")
            return (await app.aget_state(config)).values

    assert asyncio.run(walk()) == {"steps": list(range(12))}
    assert [checkpoints for checkpoints, _, _ in seen] == [1] * 12
    assert max(writes for _, writes, _ in seen) < 5
    assert [blobs for _, _, blobs in seen] == [seen[0][2]] * 12


def test_a_step_that_was_cancelled_half_way_is_done_again(server, library):
    async def cancelled() -> None:
        stack, readers = readers_for(library, server.url, at_once=4)
        async with stack:
            (entry,) = library.list()
            workflow = SHAPES["relay"](library, None, readers)
            stream = workflow.stream(QUESTION, [library.get(entry.id)], budget=Budget())
            noted = 0
            async for event in stream:
                noted += isinstance(event, NoteTaken)
                if noted == 5:
                    break
            await stream.aclose()

    asyncio.run(cancelled())
    # What LangGraph leaves when a task is cancelled between its own writes and that of the edge to the next step.
    with library.shared.write() as connection:
        (step,) = connection.execute("SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints").fetchall()
        connection.execute("DELETE FROM checkpoint_writes")
        connection.executemany(
            "INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*step, task, index, channel, "msgpack", b"\x05")
                for task, index, channel in (("cut", 0, "at"), ("cut", -1, "__error__"), ("done", 0, "at"))
            ],
        )

    async def left() -> list:
        async with library.checkpoints() as saver:
            await saver.forget_cancelled(step[0])
            kept = await saver.aget_tuple({"configurable": {"thread_id": step[0]}})
            return [task for task, _, _ in kept.pending_writes]

    assert asyncio.run(left()) == ["done"]


def test_no_password_is_logged(library, shared, caplog):
    async def use() -> None:
        async with library.checkpoints() as saver:
            await saver.aget_tuple({"configurable": {"thread_id": "nobody's"}})

    with caplog.at_level(logging.DEBUG):
        with Library.open(library.path.with_name("again.sqlite"), shared=shared) as again:
            asyncio.run(again.calls.claim("k"))
        asyncio.run(use())
    assert caplog.records
    assert PASSWORD not in caplog.text
    assert quote(PASSWORD, safe="") not in caplog.text


def test_savers_of_one_loop_share_connections_and_close_them(library, shared):
    async def count(saver) -> int:
        await saver.aget_tuple({"configurable": {"thread_id": "nobody's"}})
        with library.shared.read() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return int(row.fetchone()[0])

    async def many() -> int:
        async def one(wait: asyncio.Barrier) -> int:
            async with library.checkpoints() as saver:
                await wait.wait()
                return await count(saver)

        wait = asyncio.Barrier(20)
        return max(await asyncio.gather(*(one(wait) for _ in range(20))))

    with library.shared.read() as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        before = row.fetchone()[0]
    assert before < asyncio.run(many()) <= before + 4
    deadline = time.monotonic() + 30
    while True:
        with library.shared.read() as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            if row.fetchone()[0] <= before:
                break
        assert time.monotonic() < deadline
