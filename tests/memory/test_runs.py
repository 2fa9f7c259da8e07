"""Runs: what was asked, what came of it, what it cost."""

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from lcdoc.memory import Library, LibraryCorruptError, ModelUsage, UnknownRunError

SPENT = ModelUsage(
    calls=3, failed_calls=1, stored_calls=2, tokens_in=100, tokens_cached=40, tokens_out=20, cost_usd=0.5, seconds=1.5
)


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def start(library, question="Why did she leave?"):
    return library.runs.start(question, "map_reduce", "openai/gpt", [("d1", "tale.pdf")], {"usd": 1.0, "calls": None})


def move(library, run_id, started_at):
    library.runs.list()
    with library.database.write() as connection:
        connection.execute("UPDATE runs SET started_at = ? WHERE id = ?", (started_at.timestamp(), run_id))


def test_a_run_from_its_start_to_its_end(library):
    run_id = start(library)
    (run,) = library.runs.list()
    assert (run.id, run.status, run.finished_at, run.answer, run.total) == (run_id, "running", None, None, ModelUsage())
    assert datetime.now(UTC) - run.started_at < timedelta(minutes=1)

    library.runs.record(run_id, "openai/gpt", ModelUsage(calls=1))
    library.runs.record(run_id, "openai/gpt", SPENT)
    library.runs.record(run_id, "local", ModelUsage(calls=5, tokens_out=7, cost_usd=None, estimated=True))
    library.runs.finish(run_id, "answered", {"claims": ["Sie ging im März."], "found": True})
    run = library.runs.find(run_id)
    assert run.status == "answered"
    assert run.finished_at >= run.started_at
    assert run.question == "Why did she leave?"
    assert run.workflow == "map_reduce"
    assert run.documents == (("d1", "tale.pdf"),)
    assert run.budget == {"usd": 1.0, "calls": None}
    assert run.answer == {"claims": ["Sie ging im März."], "found": True}
    assert run.usage["openai/gpt"] == SPENT
    assert run.total.calls == 8
    assert run.total.tokens_out == 27
    assert run.total.cost_usd is None
    assert run.total.estimated
    assert library.verify() == []


def test_a_run_as_json(library):
    run_id = start(library)
    library.runs.record(run_id, "m", SPENT)
    library.runs.finish(run_id, "failed", error="model m: no connection")
    plain = json.loads(json.dumps(library.runs.find(run_id).as_dict()))
    assert plain["documents"] == [{"id": "d1", "name": "tale.pdf"}]
    assert plain["status"] == "failed"
    assert plain["error"] == "model m: no connection"
    assert plain["answer"] is None
    assert plain["usage"]["m"]["cost_usd"] == plain["total"]["cost_usd"] == 0.5
    assert datetime.fromisoformat(plain["finished_at"]) >= datetime.fromisoformat(plain["started_at"])


def test_ids_sort_by_time_and_are_listed_backwards(library):
    ids = [start(library, f"question {number}") for number in range(50)]
    assert len(set(ids)) == 50
    assert ids == sorted(ids)
    assert all(len(run_id) == 12 and run_id.isalnum() and run_id == run_id.lower() for run_id in ids)
    assert [run.id for run in library.runs.list(10)] == ids[:-11:-1]
    assert len(library.runs.list()) == 20


def test_finding_by_the_beginning_of_an_id(library):
    first, second = start(library), start(library)
    assert library.runs.find(first[:-1]).id == first
    assert library.runs.find(second.upper()).id == second
    for nobody in ("zzz", "", first + "0", "%"):
        with pytest.raises(UnknownRunError, match="no run"):
            library.runs.find(nobody)
    with pytest.raises(UnknownRunError, match="more than one run"):
        library.runs.find(first[:2])


def test_a_run_whose_process_was_killed_has_died(library):
    script = (
        "import sys, time; from lcdoc.memory import Library, ModelUsage\n"
        "library = Library.open(sys.argv[1])\n"
        "run = library.runs.start('q', 'w', 'm', [], {})\n"
        "library.runs.record(run, 'm', ModelUsage(calls=3))\n"
        "assert library.runs.find(run).status == 'running'\n"
        "print(run, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(library.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run_id = process.stdout.readline().strip()
    assert library.runs.find(run_id).status == "running"
    process.kill()
    process.communicate()
    run = library.runs.find(run_id)
    assert run.status == "died"
    assert run.usage["m"].calls == 3
    assert run.finished_at is None


def test_text_that_is_none_is_recorded_all_the_same(library):
    run_id = library.runs.start("why\udcff?", "w", "m", [("d", "b\udce4d.pdf")], {})
    library.runs.finish(run_id, "failed", error="\ud83d")
    run = library.runs.find(run_id)
    assert (run.question, run.error) == ("why??", "?")
    assert run.documents == (("d", "b\udce4d.pdf"),)


@pytest.mark.parametrize("answer", [{"a": object()}, {"a": float("nan")}])
def test_an_answer_that_is_no_json_is_refused(library, answer):
    run_id = start(library)
    with pytest.raises((TypeError, ValueError)):
        library.runs.finish(run_id, "answered", answer)


def test_the_end_of_an_unknown_run_is_a_warning(library, caplog):
    with caplog.at_level(logging.WARNING):
        library.runs.finish("nobody", "answered")
        library.runs.list()
    assert "nobody" in caplog.text


def test_a_library_that_is_locked_holds_nobody_up(library, caplog):
    with Library.open(library.path, lock_timeout_s=0.1) as other, caplog.at_level(logging.WARNING):
        with library.database.write():
            start(other)
            assert other.runs.list() == []
        assert "not kept" in caplog.text
        run_id = start(other)
    assert [run.id for run in library.runs.list()] == [run_id]


def test_costs_by_model_day_and_run(library):
    first, second, third = (start(library) for _ in range(3))
    library.runs.record(first, "a", ModelUsage(calls=1, tokens_in=10, cost_usd=0.25))
    library.runs.record(first, "b", ModelUsage(calls=1, tokens_in=1000, cost_usd=None))
    library.runs.record(second, "a", ModelUsage(calls=2, tokens_in=20, cost_usd=0.5))
    library.runs.record(third, "b", ModelUsage(calls=1, tokens_in=1, cost_usd=1.0))
    move(library, first, datetime(2031, 5, 4, 23, 59, tzinfo=UTC))
    move(library, second, datetime(2031, 5, 4, 1, 0, tzinfo=UTC))
    move(library, third, datetime(2031, 5, 5, 0, 1, tzinfo=UTC))

    def lines(**which):
        return [
            (line.name, line.runs, line.usage.calls, line.cost_usd, line.known_usd)
            for line in library.runs.cost(**which)
        ]

    assert lines() == [("b", 2, 2, None, 1.0), ("a", 2, 3, 0.75, 0.75)]
    assert lines(by="day") == [("2031-05-04", 2, 4, None, 0.75), ("2031-05-05", 1, 1, 1.0, 1.0)]
    assert lines(by="run") == [(second, 1, 2, 0.5, 0.5), (first, 1, 2, None, 0.25), (third, 1, 1, 1.0, 1.0)]
    assert lines(since=datetime(2031, 5, 5, tzinfo=UTC)) == [("b", 1, 1, 1.0, 1.0)]
    assert lines(since=datetime(2032, 1, 1, tzinfo=UTC)) == []


@pytest.mark.parametrize("damage", ["answer = x'7a00'", "budget = '{'", "documents = '[1]'", "owner = 'me'"])
def test_a_damaged_run_is_found(library, damage):
    run_id = start(library)
    library.runs.finish(run_id, "answered", {"a": 1})
    library.runs.list()
    with library.database.write() as connection:
        connection.execute(f"UPDATE runs SET status = 'running', {damage}")
    with pytest.raises(LibraryCorruptError):
        library.runs.list()
    (problem,) = library.verify()
    assert run_id in problem
