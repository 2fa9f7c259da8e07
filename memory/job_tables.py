"""The tables of jobs, in SQLite's words.

What has been released is not edited: a change is a step of its own in `lcdoc.memory.migrations`.

A document's tasks have rows from the time it is ready, or has failed: before anything is read, a folder of a million
costs a million rows, not that many times its questions. What is worked at has a row among the leases, which are few.
A row in the state `alone` waits for the last attempt it has: see `lcdoc.memory.job_claims`.
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


JOBS: tuple[str, ...] = (
    # `settings` is JSON; `same`, what tells jobs apart that do the same. `state` is open, paused, cancelled or
    # removed.
    """
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
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL
    ) WITHOUT ROWID""",
    # What counting the rows of a job would give, kept with every change of them: a job may have millions.
    """
    CREATE TABLE job_totals (
        job TEXT PRIMARY KEY REFERENCES jobs (id),
        documents INTEGER NOT NULL DEFAULT 0,
        preparing INTEGER NOT NULL DEFAULT 0,
        ready INTEGER NOT NULL DEFAULT 0,
        unreadable INTEGER NOT NULL DEFAULT 0,
        running INTEGER NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        sequence INTEGER NOT NULL DEFAULT 0,
        pages INTEGER NOT NULL DEFAULT 0,
        characters INTEGER NOT NULL DEFAULT 0,
        reading_s REAL NOT NULL DEFAULT 0,
        answering_s REAL NOT NULL DEFAULT 0,
        calls INTEGER NOT NULL DEFAULT 0,
        failed_calls INTEGER NOT NULL DEFAULT 0,
        stored_calls INTEGER NOT NULL DEFAULT 0,
        tokens_in INTEGER NOT NULL DEFAULT 0,
        tokens_cached INTEGER NOT NULL DEFAULT 0,
        tokens_out INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL NOT NULL DEFAULT 0,
        unpriced INTEGER NOT NULL DEFAULT 0,
        calls_s REAL NOT NULL DEFAULT 0,
        estimated INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    # `waiting` and `running` count its tasks; `seconds` is what it took, its tasks included; `worker` who had it last.
    """
    CREATE TABLE job_documents (
        job TEXT NOT NULL REFERENCES jobs (id),
        number INTEGER NOT NULL,
        path TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'waiting',
        worker TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        waiting INTEGER NOT NULL DEFAULT 0,
        running INTEGER NOT NULL DEFAULT 0,
        document_id TEXT NOT NULL DEFAULT '',
        name TEXT NOT NULL DEFAULT '',
        pages INTEGER NOT NULL DEFAULT 0,
        characters INTEGER NOT NULL DEFAULT 0,
        seconds REAL NOT NULL DEFAULT 0,
        ended_at REAL NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (job, number),
        UNIQUE (job, path)
    ) WITHOUT ROWID""",
    "CREATE INDEX job_documents_by_state ON job_documents (job, state, number)",
    "CREATE INDEX job_documents_open ON job_documents (job, running, number) WHERE waiting > 0",
    "CREATE INDEX job_documents_by_seconds ON job_documents (job, seconds)",
    "CREATE INDEX job_documents_in_time ON job_documents (job, ended_at) WHERE ended_at > 0",
    """
    CREATE TABLE job_tasks (
        job TEXT NOT NULL,
        document INTEGER NOT NULL,
        task INTEGER NOT NULL,
        state TEXT NOT NULL,
        worker TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        seconds REAL NOT NULL DEFAULT 0,
        error TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (job, document, task),
        FOREIGN KEY (job, document) REFERENCES job_documents (job, number)
    ) WITHOUT ROWID""",
    "CREATE INDEX job_tasks_by_state ON job_tasks (job, state, document, task)",
    # `task` 0 is the preparing of the document; `attempt`, the how many-th of it.
    """
    CREATE TABLE job_leases (
        job TEXT NOT NULL,
        token TEXT NOT NULL,
        document INTEGER NOT NULL,
        task INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        worker TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (job, token),
        UNIQUE (job, document, task)
    ) WITHOUT ROWID""",
    "CREATE INDEX job_leases_by_worker ON job_leases (job, worker, attempt)",
    "CREATE INDEX job_leases_by_time ON job_leases (job, until)",
    # `result` is packed JSON; empty where nobody gave one. Rows are large: not kept in key order.
    """
    CREATE TABLE job_results (
        job TEXT NOT NULL,
        document INTEGER NOT NULL,
        task INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        finished_at REAL NOT NULL,
        result BLOB NOT NULL,
        PRIMARY KEY (job, document, task),
        FOREIGN KEY (job, document, task) REFERENCES job_tasks (job, document, task)
    )""",
    "CREATE UNIQUE INDEX job_results_in_time ON job_results (job, sequence, finished_at)",
    # `owner` names the process, as `lcdoc.memory.owner.Owner` writes it.
    """
    CREATE TABLE job_workers (
        job TEXT NOT NULL REFERENCES jobs (id),
        id TEXT NOT NULL,
        owner TEXT NOT NULL,
        started_at REAL NOT NULL,
        beat_at REAL NOT NULL,
        doing TEXT NOT NULL,
        PRIMARY KEY (job, id)
    ) WITHOUT ROWID""",
)
