"""Jobs as a part of the library: looked after with it."""

import sqlite3
from pathlib import Path

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library
from lcdoc.memory.errors import translated


def add(library: Library, name: str) -> str:
    builder = DocumentBuilder(Job(name, b"", "text/plain"))
    builder.paragraph(f"This is {name}.")
    document = builder.build(reader="plain", reader_version="1", digest=name)
    library.add(document, [], recipe="r")
    return document.id


def test_pruning_spares_what_jobs_have_still_to_do_with(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library.sqlite") as library:
        needed, done, other = (add(library, name) for name in ("needed.txt", "done.txt", "other.txt"))
        job = library.jobs.create({}, tasks=1)
        library.jobs.add_documents(job, ["done.txt", "needed.txt"])
        for document_id in (done, needed):
            work = library.jobs.claim_document(job, "w")
            assert work is not None
            library.jobs.ready(work, document_id=document_id, name="", pages=1, characters=1, seconds=1)
        (task,) = library.jobs.claim(job, "w")
        library.jobs.keep(task, {"answer": "yes"}, seconds=1)
        assert task.document_id == done

        assert {entry.id for entry in library.prune(missing=True)} == {done, other}
        assert library.prune(max_bytes=0) == []
        assert [entry.id for entry in library.list()] == [needed]
        assert [row.row for row in library.jobs.results(job)] == [{"answer": "yes"}]
        library.jobs.cancel(job)
        assert [entry.id for entry in library.prune(missing=True)] == [needed]


def test_a_damaged_job_is_told(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library.sqlite") as library:
        job = library.jobs.create({}, tasks=1)
        library.jobs.add_documents(job, ["a.txt"])
        assert library.verify() == []
        with library.database.write() as connection:
            connection.execute("DELETE FROM job_documents")
        (problem,) = library.verify()
        assert problem == f"{library.path}: job {job} is damaged: it tells of 1 documents where 0 are"


def test_an_old_sqlite_is_told(tmp_path: Path) -> None:
    said = translated(tmp_path, sqlite3.OperationalError('near "RETURNING": syntax error'))
    assert "and batch jobs need 3.35 or later; use another build of Python" in str(said)


def test_removing_a_job_leaves_nothing_of_it(tmp_path: Path) -> None:
    with Library.open(tmp_path / "library.sqlite") as library:
        job = library.jobs.create({}, tasks=1)
        library.jobs.add_documents(job, [f"{number}.txt" for number in range(1200)])
        work = library.jobs.claim_document(job, library.jobs.register(job))
        assert work is not None
        library.jobs.document_failed(work, "no", 1)
        library.jobs.claim_document(job, "w")
        library.jobs.remove(job)
        with library.database.read() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'job%'")
            rows = {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for (name,) in tables.fetchall()
            }
        assert set(rows) >= {"jobs", "job_totals", "job_documents", "job_tasks", "job_results", "job_leases"}
        assert set(rows.values()) == {0}
