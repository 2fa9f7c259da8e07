"""What becomes of files and tasks: rows, and whose fault it is when there are none."""

import asyncio
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lcdoc.documents import Document
from lcdoc.documents.loading import RawFile, parse
from lcdoc.documents.pool import ParserPool
from lcdoc.jobs.faults import UndoneError
from lcdoc.jobs.job import Job
from lcdoc.jobs.work import AT_HAND, Done, Work
from lcdoc.memory import Library
from lcdoc.memory.job_records import Lease, TaskWork
from lcdoc.retrieval.index import Index
from lcdoc.tests.jobs.small_jobs import QUESTION, honest_model, texts
from lcdoc.tests.servers.chat_server import ChatServer, Hang, Status

ASK = {"question": QUESTION, "workflow": "retrieve"}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as running:
        honest_model(running, tmp_path, monkeypatch)
        yield running


def task_of(path: str, document_id: str, task: int = 1) -> TaskWork:
    return TaskWork("job", 1, path, document_id, task, 1, Lease("token", "worker", 0.0))


def answered(work: Work, path: str, task: int = 1) -> Done:
    """The row of a task about this file."""

    async def answer() -> Done:
        try:
            return await work.answer(task_of(path, work.prepare(path).document_id, task))
        finally:
            await work.aclose()

    return asyncio.run(answer())


def test_a_file_becomes_a_row_with_a_checked_quote(library: Library, tmp_path: Path) -> None:
    (path,) = texts(tmp_path, 1)
    work = Work(library, Job(tasks=[ASK], model="offline"), "job", worker="w1")
    row = answered(work, path).row
    assert row.answer == "101"
    (citation,) = row.claims[0]["citations"]
    assert citation["quote"] == "In fair weather the ferry may carry 101 passengers and 1 carts."
    assert citation["pages"] == [1]
    assert (row.document.path, row.document.name, row.document.pages) == (path, "ferry-1.txt", 2)
    assert (row.found, row.error, row.worker, row.workflow, row.model) == (True, "", "w1", "retrieve", "offline")
    assert library.runs.find(row.run_id).status == "answered"


def test_a_file_is_parsed_once_and_embedded_whole(library: Library, tmp_path: Path) -> None:
    (path,) = texts(tmp_path, 1)
    parsed: list[str] = []

    def count(raw: RawFile) -> Document:
        parsed.append(raw.name)
        return parse(raw)

    work = Work(library, Job(tasks=[ASK], model="offline"), "job", parse=count)
    first, again = work.prepare(path), work.prepare(path)
    assert (first.document_id, first.name, first.pages) == (again.document_id, "ferry-1.txt", 2)
    assert parsed == [path]
    assert Index(library, work.embedder).missing(first.document_id) == 0
    Path(path).write_text("The ferry has been sold.", encoding="utf-8")
    assert work.prepare(path).document_id != first.document_id
    assert parsed == [path, path]


def test_a_document_that_another_machine_prepared_is_read_here_too(library: Library, tmp_path: Path) -> None:
    path, other = texts(tmp_path, 2)
    with Library.open(tmp_path / "another-machine.sqlite") as elsewhere:
        document_id = Work(elsewhere, Job(tasks=[ASK], model="offline"), "job").prepare(path).document_id
    work = Work(library, Job(tasks=[ASK], model="offline"), "job")

    async def answers(path: str) -> list[Done]:
        return await asyncio.gather(*(work.answer(task_of(path, document_id)) for _ in range(3)))

    rows = [done.row for done in asyncio.run(answers(path))]
    assert [row.answer for row in rows] == ["101"] * 3
    assert [entry.id for entry in library.list()] == [document_id]
    library.remove(document_id)
    work = Work(library, Job(tasks=[ASK], model="offline"), "job")
    (changed, *_) = asyncio.run(answers(other))
    assert changed.row.error.startswith(f"{other}: it is not the file any more that was read for this job; put")


def test_documents_that_are_done_with_are_forgotten(library: Library, tmp_path: Path) -> None:
    with ParserPool(1) as pool:
        work = Work(library, Job(tasks=[ASK], model="offline"), "job", parse=pool.parse)
        prepared = [work.prepare(path).document_id for path in texts(tmp_path, AT_HAND + 2)]
    assert list(work._open) == prepared[2:]


def test_summaries_and_extractions_are_rows_like_answers(library: Library, tmp_path: Path) -> None:
    (path,) = texts(tmp_path, 1)
    schema = {
        "type": "object",
        "properties": {"passengers": {"type": "integer", "description": "passengers the ferry may carry"}},
    }
    tasks = [{"kind": "summarize", "words": 30}, {"kind": "extract", "schema": schema}]
    job = Job(tasks=tasks, model="offline")
    summary = answered(Work(library, job, "job"), path, 1).row
    assert (summary.task.kind, summary.workflow, summary.found) == ("summarize", "summarize", True)
    assert "ferry" in summary.answer
    extracted = answered(Work(library, job, "job"), path, 2).row
    assert (extracted.task.kind, extracted.workflow) == ("extract", "extract")
    assert extracted.value == {"passengers": 101}


def test_what_is_the_matter_with_a_file_is_its_own_fault(library: Library, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\nand nothing else")
    work = Work(library, Job(tasks=[ASK], model="offline"), "job")
    with pytest.raises(UndoneError) as raised:
        work.prepare(str(broken))
    fault = raised.value.fault
    assert (fault.reach, fault.kind) == ("task", "")
    assert fault.reason.startswith(str(broken))
    with pytest.raises(UndoneError) as raised:
        work.prepare(str(tmp_path / "gone.pdf"))
    assert (raised.value.fault.reach, raised.value.fault.kind) == ("task", "NotFoundError")
    assert pickle.loads(pickle.dumps(raised.value)).fault == raised.value.fault


def test_a_server_that_fails_at_one_question_makes_a_row_that_says_what_it_cost(
    library: Library, server: ChatServer, tmp_path: Path
) -> None:
    (path,) = texts(tmp_path, 1)
    server.default = Status(500)
    done = answered(Work(library, Job(tasks=[ASK], model="honest"), "job"), path)
    assert done.fault is not None
    assert (done.fault.reach, done.fault.kind) == ("task", "ServerError")
    assert "500" in done.row.error
    assert done.usage.failed_calls == done.usage.calls > 1
    assert library.runs.find(done.row.run_id).status == "failed"


def test_a_wrong_key_is_everybodys_fault_and_no_connection_the_servers(
    library: Library, server: ChatServer, tmp_path: Path
) -> None:
    (path,) = texts(tmp_path, 1)
    job = Job(tasks=[ASK], model="honest")
    server.default = Status(401)
    with pytest.raises(UndoneError) as raised:
        answered(Work(library, job, "job"), path)
    assert raised.value.fault.reach == "job"
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace(server.url, "http://127.0.0.1:9/v1"), encoding="utf-8")
    with pytest.raises(UndoneError) as raised:
        answered(Work(library, job, "job"), path)
    assert raised.value.fault.reach == "server"


@pytest.mark.parametrize("store", ["use", "refresh", "off"])
def test_what_was_cut_off_goes_on_and_sends_nothing_again(
    library: Library, server: ChatServer, tmp_path: Path, store: str
) -> None:
    (path,) = texts(tmp_path, 1)
    honest = server.default
    assert callable(honest)
    hang = Hang()
    server.default = lambda recorded: honest(recorded) if len(server.requests) == 1 else hang
    job = Job(tasks=[ASK], model="honest", store=store)
    begun = datetime.now(UTC)
    work = Work(library, job, "job", since=begun)

    async def left() -> None:
        task = asyncio.create_task(work.answer(task_of(path, work.prepare(path).document_id)))
        await asyncio.to_thread(server.wait_for, lambda: len(server.requests) > 1)
        task.cancel()
        await asyncio.wait([task])
        await work.aclose()

    asyncio.run(left())
    answered_first = set(server.answered)
    server.default = honest
    row = answered(Work(library, job, "job", since=begun), path).row
    assert "101" in row.answer
    assert len(answered_first) == 1
    assert all(server.received[key] == 1 for key in answered_first)
    assert [run.status for run in library.runs.list()] == ["answered"]
