"""`lcdoc.batch`: the rows of a job in Python."""

import asyncio
import json
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest

import lcdoc
from lcdoc.jobs.begin import begin
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.worker import work
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus
from lcdoc.tests.jobs.small_jobs import QUESTION, texts

JOB = lcdoc.Job(tasks=[{"question": QUESTION, "workflow": "retrieve"}], model="offline")


def test_rows_come_as_they_are_made_and_going_on_gives_none_twice(tmp_path: Path) -> None:
    texts(tmp_path / "ferries", 6)
    (tmp_path / "ferries" / "broken.pdf").write_bytes(b"%PDF-1.7\nand nothing else")
    library, out = tmp_path / "library.sqlite", tmp_path / "out"

    async def main() -> list[lcdoc.Result]:
        batch = lcdoc.batch(tmp_path / "ferries", JOB, library=library, workers=1, out=out)
        results: list[lcdoc.Result] = []
        async with aclosing(aiter(batch)) as rows:
            async for result in rows:
                results.append(result)
                if len(results) == 2:
                    break
        with Library.open(library) as opened:
            status = opened.jobs.status(batch.id)
            assert status.workers == ()
            assert status.tasks["running"] == status.documents["preparing"] == 0
        results += [result async for result in batch]
        assert [result async for result in batch] == []
        again = [result async for result in lcdoc.batch(tmp_path / "ferries", JOB, library=library, out=out)]
        assert again == results
        return results

    results = asyncio.run(main())
    assert sorted(result.document.number for result in results) == [1, 2, 3, 4, 5, 6, 7]
    failed = [result for result in results if result.error]
    assert [Path(result.document.path).name for result in failed] == ["broken.pdf"]
    assert all(f"{99 + result.document.number}" in result.answer for result in results if result.found)
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["document"]["number"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]


def test_a_loop_that_was_left_is_gone_on_with_at_once_and_two_at_once_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts(tmp_path / "ferries", 2)
    path = tmp_path / "library.sqlite"
    with Library.open(path) as opened:
        job = begin(opened, JOB.changed(documents=(str(tmp_path / "ferries"),))).record.id
    assert work(path, job) == 0
    runs: list[threading.Event] = []

    def slow_to_end(_library: object, _job: str, *, stop: threading.Event, **_more: object) -> JobStatus:
        runs.append(stop)
        if len(runs) == 1:
            stop.wait()
            time.sleep(0.2)
        with Library.open(path) as opened:
            return opened.jobs.status(job)

    monkeypatch.setattr("lcdoc.jobs.api.run_job", slow_to_end)

    async def main() -> list[lcdoc.Result]:
        batch = lcdoc.batch(tmp_path / "ferries", JOB, library=path)
        first = None
        async for one in batch:
            first = one
            with pytest.raises(JobError, match="iterated already"):
                await anext(aiter(batch))
            break
        return [first, *[result async for result in batch]]

    assert [result.document.number for result in asyncio.run(main())] == [1, 2]
    assert len(runs) == 2


def test_what_is_wrong_before_it_begins_is_raised(tmp_path: Path) -> None:
    async def rows(job: lcdoc.Job) -> list[lcdoc.Result]:
        return [result async for result in lcdoc.batch(tmp_path / "none", job, library=tmp_path / "library.sqlite")]

    with pytest.raises(lcdoc.DocumentError, match="no such file or folder"):
        asyncio.run(rows(JOB))
    texts(tmp_path / "none", 1)
    with pytest.raises(lcdoc.ModelError, match="nobody"):
        asyncio.run(rows(JOB.changed(model="nobody/knows-this")))


def test_a_job_that_stops_for_a_reason_raises_it(tmp_path: Path) -> None:
    texts(tmp_path / "ferries", 1)
    library = tmp_path / "library.sqlite"

    def stop(status: object) -> None:
        with Library.open(library) as opened:
            for record in opened.jobs.list():
                opened.jobs.pause(record.id, "somebody wants the machine")

    async def main() -> None:
        async for _ in lcdoc.batch(tmp_path / "ferries", JOB, library=library, workers=1, on_status=stop):
            pass

    with pytest.raises(JobError, match="stopped: somebody wants the machine"):
        asyncio.run(main())
