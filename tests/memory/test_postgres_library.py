"""Libraries of two machines with one shared state: nothing is paid twice, and what one did the other sees."""

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("psycopg")

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.call_store import StoredModel
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Request, TokenUsage
from lcdoc.memory import Call, Library, LibraryAwayError, ModelUsage, UnknownRunError
from lcdoc.memory.database import Database
from lcdoc.memory.leases import LEASE_S
from lcdoc.memory.postgres import PostgresDatabase
from lcdoc.memory.runs import RunEndedError, RunUnderWayError
from lcdoc.memory.spending import CapReachedError, Caps, Spending

CALL = Call(
    text="The keeper left in March.",
    model="gpt-oss",
    base_url="http://127.0.0.1:8080/v1",
    prompt="read/1",
    tokens_in=100,
    estimated=True,
    served_by="gpt\0oss",
    reasoning="page 4\0",
    logprobs=(("The", -0.5),),
)
ELSEWHERE = """
import asyncio, socket, sys
socket.gethostname = lambda: "another-node"  # before anybody asks
from lcdoc.memory import Call, Library
library = Library.open(sys.argv[1])
"""


class EchoModel:
    """Says what it is told, and counts how often."""

    spec = ModelSpec(name="echo", context_window=1000)
    asked = 0

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def complete(self, request: Request) -> Completion:
        self.asked += 1
        return Completion(text=request.messages[-1].content, usage=TokenUsage(1, 0, 1), finish="stop")


@pytest.fixture
def nodes(shared: str, tmp_path: Path) -> Iterator[tuple[Library, Library]]:
    with (
        Library.open(tmp_path / "one.sqlite", shared=shared) as one,
        Library.open(tmp_path / "other.sqlite", shared=shared) as other,
    ):
        yield one, other


def on_another_machine(program: str, shared: str, library: Path) -> str:
    """What a program prints that runs there and ends without cleaning up."""
    command = [sys.executable, "-c", ELSEWHERE + textwrap.dedent(program), str(library)]
    environment = {**os.environ, "LCDOC_SHARED": shared}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def let_leases_end(library: Library) -> None:
    with library.shared.write() as connection:
        connection.execute("UPDATE leases SET expires_at = expires_at - ?", (LEASE_S + 1,))


def test_what_one_machine_paid_for_the_other_has(nodes):
    one, other = nodes
    asyncio.run(one.calls.put("k", CALL))
    kept = other.calls.get("k")
    assert replace(kept, created_at=0.0) == replace(CALL, served_by="gpt\N{REPLACEMENT CHARACTER}oss")
    assert asyncio.run(other.calls.claim("k")) == kept
    asyncio.run(other.calls.put("k", replace(CALL, text="another")))
    assert one.calls.get("k").text == "another"
    assert one.calls.pace(CALL.base_url, CALL.model) == {("read", None): (0.0, 1)}
    with one.reading() as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (0,)  # not in the file of its own
    assert one.verify() == other.verify() == []


def test_of_many_that_claim_a_call_at_once_one_makes_it(nodes):
    async def claims() -> list:
        return await asyncio.gather(*(node.calls.claim(f"k{n}") for n in range(20) for node in nodes))

    claims_had = asyncio.run(claims())
    pairs = list(zip(claims_had[::2], claims_had[1::2], strict=True))
    assert all(sorted(pair) == [False, True] for pair in pairs)
    one, other = nodes
    for n, (first, _) in enumerate(pairs):
        (one if first else other).calls.release(f"k{n}")
    for node in nodes:
        node.runs.list()  # what was given to be written is written then
    assert not any(node.calls.is_claimed(f"k{n}") for n in range(20) for node in nodes)


def test_the_lease_of_a_machine_that_died_ends_with_its_time(nodes, shared, tmp_path):
    one, _ = nodes
    on_another_machine("import os; print(asyncio.run(library.calls.claim('k'))); os._exit(0)", shared, tmp_path / "x")
    assert one.calls.is_claimed("k")
    assert asyncio.run(one.calls.claim("k")) is False
    let_leases_end(one)
    assert not one.calls.is_claimed("k")
    assert asyncio.run(one.calls.claim("k")) is True


def test_prompts_are_the_same_everywhere(nodes, tmp_path):
    one, other = nodes
    assert one.secret() == other.secret()
    with Library.open(tmp_path / "alone.sqlite") as alone:
        assert alone.secret() != one.secret()


def test_notes_events_and_runs_are_one_record(nodes):
    one, other = nodes
    run_id = one.runs.start("Why?\0", "chain", "gpt", [("d1", "tale.pdf")], {"usd": 1.0})
    asyncio.run(one.notebook.keep(run_id, "read/B", {"found": True}))
    asyncio.run(one.notebook.keep(run_id, "read/a", {"found": False}))
    asyncio.run(one.notebook.keep(run_id, "read/B", {"found": "again"}))
    one.notebook.record(run_id, "Started", {"pages": 3})
    one.notebook.record(run_id, "Spent", {})
    one.runs.record(run_id, "gpt", ModelUsage(calls=3, cost_usd=0.5))
    one.runs.record(run_id, "local", ModelUsage(calls=1, cost_usd=None, estimated=True))
    assert [entry.kind for entry in one.notebook.events(run_id)] == ["Started", "Spent"]
    assert list(other.notebook.notes(run_id, "read/").items()) == [
        ("read/B", {"found": "again"}),
        ("read/a", {"found": False}),
    ]
    assert [dict(entry.fields) for entry in other.notebook.events(run_id)] == [{"pages": 3}, {}]
    asyncio.run(other.notebook.drop(run_id, ["read/B"]))
    assert not one.notebook.has(run_id, "read/B")
    one.runs.finish(run_id, "answered", {"found": True})
    assert one.runs.find(run_id).status == "answered"
    run = other.runs.find(run_id[:8])
    assert (run.status, run.answer, run.total.calls, run.total.cost_usd) == ("answered", {"found": True}, 4, None)
    assert [line.name for line in other.runs.cost()] == ["gpt", "local"]
    with pytest.raises(RunEndedError):
        other.runs.resume(run_id)
    with pytest.raises(UnknownRunError):
        other.runs.find("zzz")
    assert other.runs.problems() == []


def test_a_run_of_a_machine_that_died_can_be_gone_on_with(nodes, shared, tmp_path):
    one, other = nodes
    program = """
        run_id = library.runs.start("Why?", "chain", "gpt", [("d1", "tale.pdf")], {})
        print(run_id, library.runs.list()[0].status)
        import os, sys; sys.stdout.flush(); os._exit(0)
    """
    run_id, status = on_another_machine(program, shared, tmp_path / "x.sqlite").split()
    assert (status, one.runs.find(run_id).status) == ("running", "running")
    with pytest.raises(RunUnderWayError, match="on another-node"):
        one.runs.resume(run_id)
    assert one.runs.cut_off("Why?", "chain", "gpt", [("d1", "tale.pdf")]) is None
    let_leases_end(one)
    assert one.runs.cut_off("Why?", "chain", "gpt", [("d1", "tale.pdf")]).id == run_id
    assert one.runs.find(run_id).status == "died"
    one.runs.resume(run_id)
    assert other.runs.find(run_id).status == "running"
    with pytest.raises(RunUnderWayError):
        other.runs.resume(run_id)


def test_a_run_under_way_gives_signs_of_life(nodes, monkeypatch):
    monkeypatch.setattr("lcdoc.memory.journal.BEAT_S", 0.01)
    one, _ = nodes
    run_id = one.runs.start("Why?", "chain", "gpt", [], {})
    one.runs.list()

    def expires_at() -> float:
        with one.shared.read() as connection:
            row = connection.execute("SELECT expires_at FROM leases WHERE key = ?", (f"run/{run_id}",)).fetchone()
        return float(row[0]) if row else 0.0

    first, deadline = expires_at(), time.monotonic() + 30
    while expires_at() <= first:
        assert time.monotonic() < deadline
    one.runs.finish(run_id, "partial", {})
    assert one.runs.find(run_id).status == "partial"
    assert expires_at() == 0.0


def test_whoever_lost_a_run_does_not_end_it(nodes, shared, tmp_path, caplog):
    one, _ = nodes
    run_id = one.runs.start("Why?", "chain", "gpt", [], {})
    one.runs.list()
    let_leases_end(one)
    program = f"library.runs.resume({run_id!r}); import os; os._exit(0)"
    on_another_machine(program, shared, tmp_path / "x.sqlite")
    one.runs.finish(run_id, "interrupted")
    assert one.runs.find(run_id).status == "running"
    assert "or another's" in caplog.text


def test_a_crash_of_the_server_loses_no_answer(postgres, nodes):
    one, other = nodes

    async def ten(start: int) -> None:
        await asyncio.gather(*(one.calls.put(f"k{n}", CALL) for n in range(start, start + 10)))

    asyncio.run(ten(0))
    postgres.stop(at_once=True)
    postgres.start()
    asyncio.run(ten(10))
    assert all(other.calls.get(f"k{n}") is not None for n in range(20))


def test_nothing_is_asked_while_the_store_of_paid_answers_is_away(postgres, shared, tmp_path):
    async def complete(library: Library, model: EchoModel) -> str:
        stored = StoredModel(model, library.calls, Ledger())
        return (await stored.complete(Request(messages=(Message("user", "hello"),)))).text

    database = PostgresDatabase(shared, patience_s=0.1)
    with Library(Database(tmp_path / "library.sqlite"), database) as library:
        model = EchoModel()
        assert asyncio.run(complete(library, model)) == "hello"
        postgres.stop()
        try:
            with pytest.raises(LibraryAwayError):
                asyncio.run(complete(library, model))
        finally:
            postgres.start()
        assert asyncio.run(complete(library, model)) == "hello"
        assert model.asked == 1


def test_purses_hold_for_all_machines_together(nodes):
    async def reserve(node: Library) -> bool:
        purse = node.purses.open("job", Caps(tokens=100)).of_document(1)
        try:
            purse.settle(await purse.reserve(Spending(1, 10, 1)), Spending(1, 10, 1))
        except CapReachedError:
            return False
        return True

    async def many() -> list[bool]:
        return await asyncio.gather(*(reserve(node) for _ in range(8) for node in nodes))

    assert sum(asyncio.run(many())) == 10


def test_a_library_over_its_size_keeps_the_answers_that_are_shared(nodes):
    one, other = nodes
    asyncio.run(one.calls.put("k", CALL))
    assert one.prune(max_bytes=1) == []
    assert other.calls.get("k") is not None
    assert other.prune(calls_unused_days=-1) == []
    assert one.calls.get("k") is None
