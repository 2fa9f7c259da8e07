"""Answers that are kept, leases on calls under way, and the journal that writes both."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.memory import Call, Library, LibraryBusyError, LibraryCorruptError, LibraryVersionError
from lcdoc.memory.leases import LEASE_S
from lcdoc.memory.migrations import APPLICATION_ID, MIGRATIONS
from lcdoc.memory.owner import Owner

CALL = Call(
    text="The keeper left in March. Nobody saw him go.",
    model="gpt-oss",
    base_url="http://127.0.0.1:8080/v1",
    prompt="read/1",
    tokens_in=100,
    tokens_cached=60,
    tokens_out=12,
    estimated=True,
    served_by="gpt-oss-20b",
    reasoning="He says so on page 4.",
    logprobs=(("The", -0.5), (" keeper", -0.25)),
)


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def put(library, key, call=CALL):
    asyncio.run(library.calls.put(key, call))


def claim(library, key, **options):
    return asyncio.run(library.calls.claim(key, **options))


def test_an_answer_comes_back_as_it_was(library):
    assert library.calls.get("k") is None
    put(library, "k")
    kept = library.calls.get("k")
    assert time.time() - 60 < kept.created_at <= time.time()
    assert replace(kept, created_at=0.0) == CALL
    assert library.verify() == []


def test_the_pace_of_a_model_is_by_skill_and_by_what_was_found(library):
    for key, prompt, tokens, text in (
        ("a", "read/large/1", 30, '{"found": false}'),
        ("b", "read/small/2", 90, '{"found": false}'),
        ("c", "read/small/2", 300, '{"found": true, "quotes": []}'),
        ("d", "condense/large/1", 200, "not JSON"),
        ("f", "condense/large/1", 100, '["found"]'),
    ):
        put(library, key, replace(CALL, prompt=prompt, tokens_out=tokens, text=text))
    put(library, "x", replace(CALL, model="another", prompt="read/large/1", tokens_out=5_000))
    put(library, "e", replace(CALL, base_url="http://elsewhere/v1", prompt="read/large/1", tokens_out=5_000))
    assert library.calls.pace(CALL.base_url, CALL.model) == {
        ("read", False): (60.0, 2),
        ("read", True): (300.0, 1),
        ("condense", None): (150.0, 2),
    }
    assert library.calls.pace(CALL.base_url, "nobody") == {}


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec=None)), st.text())
def test_any_text_is_kept(tmp_path_factory, text, reasoning):
    with Library.open(tmp_path_factory.mktemp("calls") / "library.sqlite") as library:
        put(library, "k", Call(text, "m", reasoning=reasoning))
        kept = library.calls.get("k")
        assert (kept.text, kept.reasoning, kept.logprobs) == (text, reasoning, None)


def test_a_later_answer_takes_the_place_of_an_earlier_one(library):
    put(library, "k")
    put(library, "k", replace(CALL, text="another"))
    assert library.calls.get("k").text == "another"


def test_a_damaged_answer_is_found_and_can_be_replaced(library):
    put(library, "k")
    put(library, "l")
    with library.database.write() as connection:
        connection.execute("UPDATE calls SET answer = x'7a00ff' WHERE key = 'k'")
    with pytest.raises(LibraryCorruptError):
        library.calls.get("k")
    (problem,) = library.verify()
    assert "stored call k is damaged" in problem
    assert claim(library, "k") is True
    put(library, "k")
    assert library.verify() == []


def test_use_is_noted_to_within_a_day(library):
    put(library, "k")
    put(library, "l")
    yesterday, lately = time.time() - 100_000, time.time() - 1000
    with library.database.write() as connection:
        connection.execute("UPDATE calls SET used_at = ? WHERE key = 'k'", (yesterday,))
        connection.execute("UPDATE calls SET used_at = ? WHERE key = 'l'", (lately,))
    library.calls.get("k")
    library.calls.get("l")
    library.close()
    with library.reading() as connection:
        used = dict(connection.execute("SELECT key, used_at FROM calls"))
    assert used["k"] > time.time() - 60
    assert used["l"] == lately


def test_prune_forgets_what_was_not_used(library):
    for key in "abc":
        put(library, key)
    with library.database.write() as connection:
        connection.execute("UPDATE calls SET used_at = ? WHERE key <> 'c'", (time.time() - 40 * 86_400,))
    assert library.calls.prune(50) == 0
    assert library.prune(calls_unused_days=30) == []
    assert [library.calls.get(key) is None for key in "abc"] == [True, True, False]


def test_a_library_over_its_size_forgets_the_answers_used_longest_ago(library):
    for number in range(12):
        put(library, str(number), Call(os.urandom(60_000).hex(), "m"))
        with library.database.write() as connection:
            connection.execute("UPDATE calls SET used_at = ? WHERE key = ?", (time.time() - 12 + number, str(number)))
    library.prune(max_bytes=600_000)
    kept = [number for number in range(12) if library.calls.get(str(number))]
    assert kept
    assert kept == list(range(kept[0], 12))
    assert library.path.stat().st_size <= 600_000


def test_writes_that_gather_are_one_transaction(library):
    statements = []

    async def work():
        await library._journal.write(lambda connection: connection.set_trace_callback(statements.append))
        with Library.open(library.path) as other, other.database.write():
            waiting = [asyncio.create_task(library.calls.put(str(number), CALL)) for number in range(100)]
            await asyncio.sleep(0.1)
        await asyncio.gather(*waiting)

    asyncio.run(work())
    assert all(library.calls.get(str(number)) for number in range(100))
    assert statements.count("COMMIT") <= 4


def test_the_journal_syncs_at_checkpoints_and_the_rest_of_the_library_at_commits(library):
    asked = "PRAGMA synchronous"
    assert asyncio.run(library._journal.write(lambda connection: connection.execute(asked).fetchone())) == (1,)
    with library.reading() as connection:
        assert connection.execute(asked).fetchone() == (2,)


def test_an_operation_that_fails_fails_alone(library):
    async def work():
        journal = library._journal
        with Library.open(library.path) as other, other.database.write():
            waiting = [
                asyncio.create_task(journal.write(lambda connection: connection.execute("INSERT INTO nowhere"))),
                asyncio.create_task(library.calls.put("k", CALL)),
                asyncio.create_task(journal.write(lambda connection: 1 / 0)),
            ]
            await asyncio.sleep(0.05)
        return await asyncio.gather(*waiting, return_exceptions=True)

    missing, kept, wrong = asyncio.run(work())
    assert isinstance(missing, sqlite3.OperationalError)
    assert kept is None
    assert isinstance(wrong, ZeroDivisionError)
    assert library.calls.get("k")


def test_a_write_goes_on_when_whoever_waits_is_cancelled(library):
    async def work():
        with Library.open(library.path) as other, other.database.write():
            waiting = asyncio.create_task(library.calls.put("k", CALL))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(work())
    library.close()
    assert library.calls.get("k")


def test_a_library_that_stays_locked_is_a_clear_error(library):
    with Library.open(library.path, lock_timeout_s=0.2) as other:
        with library.database.write(), pytest.raises(LibraryBusyError):
            put(other, "k")
        put(other, "k")
    assert library.calls.get("k")


KILLED = """
import asyncio, os, signal, sys
from lcdoc.memory import Call, Library
library = Library.open(sys.argv[1])
async def work():
    for number in range(10_000):
        await library.calls.put(str(number), Call(f"answer {number}", "m"))
        print(number, flush=True)
asyncio.run(work())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_was_put_outlives_a_killed_process(library):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(library.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    put_by_then = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    rest, errors = process.communicate(timeout=30)
    numbers = [int(line) for line in ("".join(put_by_then) + rest).split("\n")[:-1]]
    assert len(numbers) >= 5, errors
    assert all(library.calls.get(str(number)).text == f"answer {number}" for number in numbers)
    assert library.verify() == []


def test_one_of_two_has_the_lease(library):
    with Library.open(library.path) as other:
        assert claim(library, "k") is True
        assert claim(library, "k") is True
        assert claim(other, "k") is False
        assert other.calls.is_claimed("k")
        assert not library.calls.is_claimed("k")
        library.calls.release("k")
        library.close()
        assert claim(other, "k") is True


def test_the_answer_ends_the_lease_and_is_given_to_whoever_comes_next(library):
    with Library.open(library.path) as other:
        assert claim(library, "k") is True
        put(library, "k")
        found = claim(other, "k")
        assert found == library.calls.get("k")
        assert claim(other, "k", other_than=found.created_at) is True


def test_releasing_what_is_another_s_changes_nothing(library):
    with Library.open(library.path) as other:
        assert claim(library, "k") is True
        other.calls.release("k")
        assert claim(other, "k") is False


def test_a_claim_that_is_cancelled_leaves_no_lease(library):
    async def work():
        with Library.open(library.path) as other, other.database.write():
            waiting = asyncio.create_task(library.calls.claim("k"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait([waiting])
            library.calls.release("k")

    asyncio.run(work())
    library.close()
    with Library.open(library.path) as other:
        assert claim(other, "k") is True


def lease(library, owner, expires_in_s):
    with library.database.write() as connection:
        connection.execute("INSERT INTO leases VALUES ('k', ?, ?)", (str(owner), time.time() + expires_in_s))


def ended_process():
    script = "from lcdoc.memory.owner import Owner; print(Owner.here())"
    return Owner.from_text(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)


def test_the_lease_of_a_dead_process_is_free_at_once(library):
    owner = ended_process()
    assert owner.is_gone()
    lease(library, owner, LEASE_S)
    assert not library.calls.is_claimed("k")
    assert claim(library, "k") is True


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs the start time of processes")  # noqa: PTH110
def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it():
    here = Owner.here()
    assert not here.is_gone()
    assert replace(here, started="1").is_gone()
    assert replace(here, boot="another").is_gone()
    assert not replace(ended_process(), host="elsewhere").is_gone()
    assert not replace(ended_process(), namespace="pid:[7]").is_gone()


def test_another_machine_of_the_same_name_is_not_taken_for_this_one_before_it_was_started_again():
    elsewhere = replace(ended_process(), boot="another", machine="another")
    assert not elsewhere.is_here()
    assert not elsewhere.is_gone()
    assert replace(elsewhere, machine="").is_gone(), "as an earlier lcdoc wrote it"
    assert Owner.from_text(str(elsewhere)) == elsewhere


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_is_gone_also_before_its_parent_looks():
    script = "from lcdoc.memory.owner import Owner; print(Owner.here(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    owner = Owner.from_text(process.stdout.readline())
    assert not owner.is_gone()
    process.kill()
    process.stdout.read()  # ends when the process has
    deadline = time.monotonic() + 20
    while not owner.is_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert owner.is_gone()
    process.communicate()


def test_a_lease_that_cannot_be_checked_holds_until_it_expires(library):
    lease(library, replace(Owner.here(), host="elsewhere", token="t"), 100)
    assert claim(library, "k") is False
    with library.database.write() as connection:
        connection.execute("UPDATE leases SET expires_at = ?", (time.time() - 1,))
    assert claim(library, "k") is True


def test_leases_are_renewed_while_they_are_held(library, monkeypatch):
    monkeypatch.setattr("lcdoc.memory.journal.BEAT_S", 0.05)
    assert claim(library, "k") is True
    with library.database.write() as connection:
        connection.execute("UPDATE leases SET expires_at = 1")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with library.reading() as connection:
            (until,) = connection.execute("SELECT expires_at FROM leases").fetchone()
        if until > time.time():
            break
        time.sleep(0.01)
    assert until > time.time()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_by_itself(library):
    put(library, "parent")
    owner = str(library._journal.owner)
    child = os.fork()
    if child == 0:
        put(library, "child")
        os._exit(0 if library.calls.get("parent") and str(library._journal.owner) != owner else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert library.calls.get("child")
    put(library, "again")
    assert library.calls.get("again")


def test_a_library_is_used_again_after_closing(library):
    put(library, "k")
    library.close()
    put(library, "l")
    assert library.calls.get("k")
    assert library.calls.get("l")


def test_a_program_that_does_not_close_its_library_ends_and_loses_nothing(tmp_path):
    script = (
        "import sys; from lcdoc.memory import Library, ModelUsage\n"
        "library = Library.open(sys.argv[1])\n"
        "run = library.runs.start('q', 'w', 'm', [], {})\n"
        "library.runs.record(run, 'm', ModelUsage(calls=3))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "l.sqlite")], check=True, timeout=60)
    with Library.open(tmp_path / "l.sqlite") as library:
        (run,) = library.runs.list()
        assert run.usage["m"].calls == 3


def test_a_library_without_calls_gains_them(tmp_path):
    path = tmp_path / "library.sqlite"
    with sqlite3.connect(path) as connection:
        MIGRATIONS[0](connection)
        connection.execute("PRAGMA user_version = 1")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.close()
    with Library.open(path) as library:
        put(library, "k")
        assert library.calls.get("k")
        assert library.runs.list() == []
        assert library.verify() == []
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(LibraryVersionError):
        Library.open(path)


def test_a_library_has_one_secret(tmp_path):
    path = tmp_path / "library.sqlite"
    Library.open(path).close()
    secrets, start = [], threading.Barrier(4)

    def ask():
        with Library.open(path) as library:
            start.wait()
            secrets.append(library.secret())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Library.open(path) as library, Library.open(tmp_path / "other.sqlite") as other:
        assert set(secrets) == {library.secret()}
        assert len(library.secret()) == 32
        assert other.secret() != library.secret()
