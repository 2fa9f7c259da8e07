"""The tables of jobs, as SQLite and PostgreSQL make them.

What has been released is not edited: a change is a step of its own in `lcdoc.memory.migrations`.

`token`, `worker` and `until` are the lease of a row that somebody works at. A document's tasks have rows from the time
it is ready, or has failed: a folder of a million costs a million rows, not a million times its questions, before
anything is read. `alone` is a row that waits for the last attempt it has: see `lcdoc.memory.job_claims`.
"""

from __future__ import annotations

import json

_ESCAPED = "\x1f"


def path_to_text(path: str) -> str:
    """A path as the tables hold it: the names of some files are no UTF-8, and those are escaped."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _ESCAPED + json.dumps(path)
    return _ESCAPED + json.dumps(path) if path.startswith(_ESCAPED) else path


def path_from_text(text: str) -> str:
    """The inverse of `path_to_text`."""
    return str(json.loads(text[1:])) if text.startswith(_ESCAPED) else text


def plain(text: str) -> str:
    """Words for people as the tables hold them: what no database takes is shown as a question mark."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def job_tables(*, blob: str = "BLOB", clustered: str = " WITHOUT ROWID") -> tuple[str, ...]:
    """The statements that make them; `blob` is the type of bytes, `clustered` what ends a table kept in key order."""
    return (
        # `settings` is JSON; `same`, what tells jobs apart that do the same. `state` is open, paused, cancelled or
        # removed.
        f"""
        CREATE TABLE jobs (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            same TEXT NOT NULL,
            settings TEXT NOT NULL,
            tasks INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            out TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            changed_at DOUBLE PRECISION NOT NULL
        ){clustered}""",
        # What counting the rows of a job would give, kept with every change of them: a job may have millions.
        f"""
        CREATE TABLE job_totals (
            job TEXT PRIMARY KEY REFERENCES jobs (id),
            documents BIGINT NOT NULL DEFAULT 0,
            preparing BIGINT NOT NULL DEFAULT 0,
            ready BIGINT NOT NULL DEFAULT 0,
            unreadable BIGINT NOT NULL DEFAULT 0,
            running BIGINT NOT NULL DEFAULT 0,
            done BIGINT NOT NULL DEFAULT 0,
            failed BIGINT NOT NULL DEFAULT 0,
            sequence BIGINT NOT NULL DEFAULT 0,
            pages BIGINT NOT NULL DEFAULT 0,
            characters BIGINT NOT NULL DEFAULT 0,
            reading_s DOUBLE PRECISION NOT NULL DEFAULT 0,
            answering_s DOUBLE PRECISION NOT NULL DEFAULT 0,
            calls BIGINT NOT NULL DEFAULT 0,
            failed_calls BIGINT NOT NULL DEFAULT 0,
            stored_calls BIGINT NOT NULL DEFAULT 0,
            tokens_in BIGINT NOT NULL DEFAULT 0,
            tokens_cached BIGINT NOT NULL DEFAULT 0,
            tokens_out BIGINT NOT NULL DEFAULT 0,
            cost_usd DOUBLE PRECISION NOT NULL DEFAULT 0,
            unpriced BIGINT NOT NULL DEFAULT 0,
            calls_s DOUBLE PRECISION NOT NULL DEFAULT 0,
            estimated BIGINT NOT NULL DEFAULT 0
        ){clustered}""",
        # `waiting` and `running` count its tasks; `reading_s` is what preparing it took, `seconds` its tasks included.
        f"""
        CREATE TABLE job_documents (
            job TEXT NOT NULL REFERENCES jobs (id),
            number BIGINT NOT NULL,
            path TEXT NOT NULL,
            state TEXT NOT NULL DEFAULT 'waiting',
            token TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            until DOUBLE PRECISION NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            waiting INTEGER NOT NULL DEFAULT 0,
            running INTEGER NOT NULL DEFAULT 0,
            document_id TEXT NOT NULL DEFAULT '',
            name TEXT NOT NULL DEFAULT '',
            pages BIGINT NOT NULL DEFAULT 0,
            characters BIGINT NOT NULL DEFAULT 0,
            seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
            ended_at DOUBLE PRECISION NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (job, number),
            UNIQUE (job, path)
        ){clustered}""",
        "CREATE INDEX job_documents_waiting ON job_documents (job, number) WHERE state = 'waiting'",
        "CREATE INDEX job_documents_alone ON job_documents (job, number) WHERE state = 'alone'",
        "CREATE INDEX job_documents_leased ON job_documents (job, until, worker, attempts) WHERE state = 'preparing'",
        "CREATE INDEX job_documents_open ON job_documents (job, running, number) WHERE waiting > 0",
        "CREATE INDEX job_documents_by_seconds ON job_documents (job, seconds)",
        "CREATE INDEX job_documents_in_time ON job_documents (job, ended_at) WHERE ended_at > 0",
        f"""
        CREATE TABLE job_tasks (
            job TEXT NOT NULL,
            document BIGINT NOT NULL,
            task INTEGER NOT NULL,
            state TEXT NOT NULL,
            token TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            until DOUBLE PRECISION NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (job, document, task),
            FOREIGN KEY (job, document) REFERENCES job_documents (job, number)
        ){clustered}""",
        "CREATE INDEX job_tasks_waiting ON job_tasks (job, document, task) WHERE state = 'waiting'",
        "CREATE INDEX job_tasks_alone ON job_tasks (job, document, task) WHERE state = 'alone'",
        "CREATE INDEX job_tasks_leased ON job_tasks (job, until, worker, attempts) WHERE state = 'running'",
        # `result` is packed JSON; empty where nobody gave one. Rows are large: not kept in key order.
        f"""
        CREATE TABLE job_results (
            job TEXT NOT NULL,
            document BIGINT NOT NULL,
            task INTEGER NOT NULL,
            sequence BIGINT NOT NULL,
            finished_at DOUBLE PRECISION NOT NULL,
            result {blob} NOT NULL,
            PRIMARY KEY (job, document, task),
            FOREIGN KEY (job, document, task) REFERENCES job_tasks (job, document, task)
        )""",
        "CREATE UNIQUE INDEX job_results_in_time ON job_results (job, sequence, finished_at)",
        # `owner` names the process, as `lcdoc.memory.journal.Owner` writes it.
        f"""
        CREATE TABLE job_workers (
            job TEXT NOT NULL REFERENCES jobs (id),
            id TEXT NOT NULL,
            owner TEXT NOT NULL,
            started_at DOUBLE PRECISION NOT NULL,
            beat_at DOUBLE PRECISION NOT NULL,
            doing TEXT NOT NULL,
            PRIMARY KEY (job, id)
        ){clustered}""",
    )
