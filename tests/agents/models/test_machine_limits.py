"""Limits that the processes of a machine share: real processes, a real server that counts, and kills."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.machine_limits import MachineLimits, machine_limits
from lcdoc.agents.models.model import Message, ModelSpec, RateLimits, Request, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.shared_limits import SharedLimiter
from lcdoc.agents.models.stack import ModelStack
from lcdoc.memory import Library
from lcdoc.memory.shared_limits import SharedFile, machine_path
from lcdoc.tests.servers.chat_server import ChatServer, Hang, Reply, Status

DEADLINE_S = 60.0


async def ask_all(library, shared, told):
    """Ask, as fast as may be, when the word is given."""
    url, name, calls, limits = told

    def stack(shared):
        spec = ModelSpec("m", 8_192, server=Server(url, "m"), limits=RateLimits(**limits))
        return ModelStack(Chosen(spec, None, ()), library, shared=shared)

    async with stack(None) as alone, stack(shared) as together:
        # What is imported and connected at the first call is not to count as the server's time.
        await alone.for_run(Ledger(), store="off").complete(Request((Message("user", "first"),)))
        model = together.for_run(Ledger(), store="off")
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        requests = [Request((Message("user", f"{name} {number}"),)) for number in range(calls)]
        await asyncio.gather(*(model.complete(request) for request in requests))
    say("done")


def say(word):
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main():
    """What each of the processes does: as it is told, line by line."""
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder, "library.sqlite")) as library:
        while line := sys.stdin.readline():
            path, *told = json.loads(line)
            shared = MachineLimits(Path(path))
            asyncio.run(ask_all(library, shared, told))
            shared.close()


class Asker:
    """A process that asks servers."""

    def __init__(self):
        module = "lcdoc.tests.agents.models.test_machine_limits"
        command = [sys.executable, "-c", f"from {module} import main; main()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def gets_ready(self, *told, **limits):
        """`told`: the file with the limits, the server's address, what its requests are called, how many there are."""
        self.tell(json.dumps([*map(str, told[:3]), told[3], limits]))
        assert self.hears() == "ready"

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hears(self):
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def askers():
    three = [Asker() for _ in range(3)]
    yield three
    for asker in three:
        asker.end()


@pytest.fixture
def server():
    with ChatServer() as running:
        yield running


@pytest.fixture
def file(tmp_path):
    return tmp_path / "limits.sqlite"


def asked(server):
    return [request for request in list(server.requests) if request.key != "first"]


def names(server):
    return [request.key.split()[0] for request in asked(server)]


def all_ask(askers, server):
    """Have them begin together, and wait until they are done."""
    server.open_peak = 0
    for asker in askers:
        asker.tell("go")
    assert [asker.hears() for asker in askers] == ["done"] * len(askers)


def test_all_processes_together_stay_within_what_is_admitted_at_once(askers, server, file):
    for name, asker in zip("abc", askers, strict=True):
        asker.gets_ready(file, server.url, name, 20, concurrency=4)
    server.default = Reply("ok", first_s=0.05)
    all_ask(askers, server)
    assert Counter(names(server)) == {"a": 20, "b": 20, "c": 20}
    assert server.open_peak == 4
    assert set(names(server)[:30]) == {"a", "b", "c"}


def test_all_processes_together_stay_within_what_is_admitted_in_a_minute(askers, server, file):
    # The bucket holds 4 and gets 1.28 a second.
    for name, asker in zip("ab", askers[:2], strict=True):
        asker.gets_ready(file, server.url, name, 4, concurrency=50, requests_per_minute=80)
    all_ask(askers[:2], server)
    times = [request.at for request in asked(server)]
    # Each by itself would not have waited at all.
    assert len(times) == 8
    assert times[-1] - times[0] > 2


def test_one_that_sends_ten_times_as_many_does_not_starve_another(askers, server, file):
    many, few = askers[:2]
    many.gets_ready(file, server.url, "many", 300, concurrency=2)
    few.gets_ready(file, server.url, "few", 30, concurrency=2)
    server.default = Reply("ok", first_s=0.02)
    all_ask([many, few], server)
    order = names(server)
    last = len(order) - order[::-1].index("few")
    assert order[:last].count("few") == 30
    assert order[:last].count("many") < 100


def test_a_killed_process_leaves_its_turns_to_the_others(askers, server, file):
    dead, alive = Asker(), askers[0]
    try:
        dead.gets_ready(file, server.url, "dead", 5, concurrency=2)
        alive.gets_ready(file, server.url, "alive", 4, concurrency=2)
        server.default = lambda recorded: Hang() if recorded.key.startswith("dead") else Reply("ok")
        dead.tell("go")
        server.wait_for(lambda: server.open_now == 2, DEADLINE_S)
        alive.tell("go")
        time.sleep(0.5)
        assert names(server) == ["dead"] * 2, "it waits, since both turns are taken"
    finally:
        dead.end()
    assert alive.hears() == "done"
    assert names(server) == ["dead"] * 2 + ["alive"] * 4


def test_a_refusal_holds_all_processes_back(askers, server, file):
    refused = []

    def answer(recorded):
        # The first of `b`: `a` hears nothing of that but through the file.
        if recorded.key == "b 0" and not refused:
            refused.append(recorded)
            return Status(429, retry_after="2")
        return Reply("ok", first_s=0.02)

    for name, asker in zip("ab", askers[:2], strict=True):
        asker.gets_ready(file, server.url, name, 20, concurrency=1)
    server.default = answer
    all_ask(askers[:2], server)
    (pause,) = [index for index, request in enumerate(asked(server)) if request is refused[0]]
    times = [request.at for request in asked(server)]
    assert set(names(server)[pause + 1 :]) == {"a", "b"}
    assert times[pause + 1] - times[pause] >= 2.0 - 0.05


def test_a_file_that_cannot_be_had_is_told_once_and_the_limits_hold_for_each(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("lcdoc.agents.models.machine_limits._ALONE_S", 0.0)  # it is tried again each time
    blocked = tmp_path / "file"
    blocked.write_text("this is no folder", encoding="utf-8")
    shared = MachineLimits(blocked / "limits.sqlite")
    assert asyncio.run(peak_of(shared)) == 2
    assert caplog.text.count("not shared") == 1
    blocked.unlink()
    assert asyncio.run(peak_of(shared)) == 2
    assert (blocked / "limits.sqlite").exists()


def test_a_file_that_is_none_of_ours_is_told_and_left_alone(tmp_path, caplog):
    path = tmp_path / "limits.sqlite"
    path.write_text("something else " * 100, encoding="utf-8")
    assert asyncio.run(peak_of(MachineLimits(path))) == 2
    assert "not shared" in caplog.text
    assert path.read_text(encoding="utf-8").startswith("something else")


async def peak_of(shared):
    limiter, peak = SharedLimiter(shared, "server", RateLimits(concurrency=2)), 0

    async def one():
        nonlocal peak
        async with limiter.slot():
            peak = max(peak, limiter.in_flight)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(8)))
    await limiter.aclose()
    return peak


def test_it_works_in_one_event_loop_after_another(tmp_path):
    shared = MachineLimits(tmp_path / "limits.sqlite")
    limiter = SharedLimiter(shared, "server", RateLimits(concurrency=1))

    async def left_behind():
        async with limiter.slot():
            for _ in range(3):
                asyncio.create_task(one())  # noqa: RUF006 - ends with its loop
            await asyncio.sleep(0.05)

    async def one():
        async with limiter.slot():
            await asyncio.sleep(0)

    async def again():
        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(3))), DEADLINE_S)
        await limiter.aclose()

    asyncio.run(left_behind())
    asyncio.run(again())
    assert (limiter.in_flight, limiter.waiting) == (0, 0)
    # Nothing is left under way in the file either.
    other = SharedLimiter(shared, "server", RateLimits(concurrency=1))

    async def another():
        async with asyncio.timeout(DEADLINE_S), other.slot():
            pass

    asyncio.run(another())


def test_a_file_that_was_removed_is_made_anew_and_found_by_all(tmp_path):
    one, two = SharedFile(tmp_path / "shared.sqlite"), SharedFile(tmp_path / "shared.sqlite")
    assert one.change("k", lambda kept: ("a", kept)) is None
    assert two.change("k", lambda kept: ("b", kept)) == "a"
    for path in tmp_path.iterdir():
        path.unlink()
    assert one.change("k", lambda kept: ("c", kept)) is None
    assert two.change("k", lambda kept: ("d", kept)) == "c"
    one.close()
    two.close()


def test_a_change_that_fails_changes_nothing(tmp_path):
    file = SharedFile(tmp_path / "shared.sqlite")
    file.change("k", lambda _: ("kept", None))
    with pytest.raises(ZeroDivisionError):
        file.change("k", lambda _: ("lost", 1 // 0))
    assert file.change("k", lambda kept: ("x", kept)) == "kept"
    file.close()


def test_files_of_machines_long_gone_are_removed(tmp_path):
    old, recent, other = (tmp_path / name for name in ("limits-1-a.sqlite", "limits-1-b.sqlite", "notes.sqlite"))
    for path in (old, recent, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (time.time() - 30 * 86_400,) * 2)
    file = SharedFile(tmp_path / "limits-1-here.sqlite")
    file.change("k", lambda _: ("", None))
    file.close()
    assert (old.exists(), recent.exists(), other.exists()) == (False, True, True)


def test_the_file_is_the_users_and_this_runs_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert machine_path().parent == tmp_path / "lcdoc"
    assert machine_limits() is machine_limits()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_limits_of_its_own_at_hand(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    async def slot():
        limiter = SharedLimiter(machine_limits(), "server", RateLimits(concurrency=4))
        async with asyncio.timeout(DEADLINE_S / 4), limiter.slot():
            pass

    asyncio.run(slot())
    child = os.fork()
    if not child:
        status = 1
        with suppress(TimeoutError):
            asyncio.run(slot())
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
