"""Runs: what was asked, by which workflow, what came of it and what it cost.

Starting, recording and finishing are never waited for: a question is not held up, and does not fail, because its record
cannot be written; that is a warning in the log. Whoever reads here sees what was recorded in this process before.

A run under way has a lease. That its process is gone is seen at once on its own machine; elsewhere when the lease ends.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lcdoc.memory.costs import By, CostLine, cost_lines, total
from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.journal import Journal
from lcdoc.memory.leases import Leases
from lcdoc.memory.owner import Owner
from lcdoc.memory.run_ids import RunIds
from lcdoc.memory.store import Connection, Store
from lcdoc.memory.usage import ModelUsage

_logger = logging.getLogger(__name__)

Outcome = Literal["answered", "not_found", "partial", "failed", "interrupted"]
Status = Literal["running", "died", "answered", "not_found", "partial", "failed", "interrupted"]
"""`died`: it was running, and its process is gone."""

_LISTED = "`lcdoc runs list` shows what is there"


class UnknownRunError(LibraryError):
    """The library holds no run of that id or prefix, or more than one."""


class RunUnderWayError(LibraryError):
    """The run is another process's, or another task's, just now."""


class RunEndedError(LibraryError):
    """The run came to its end: there is nothing left to go on with."""


@dataclass(frozen=True, slots=True)
class Run:
    """One question put to a workflow."""

    id: str
    question: str
    workflow: str
    model: str
    documents: tuple[tuple[str, str], ...]
    """Ids and names."""
    budget: Mapping[str, Any]
    status: Status
    started_at: datetime
    finished_at: datetime | None
    answer: Mapping[str, Any] | None
    error: str
    usage: Mapping[str, ModelUsage]
    """By model."""

    @property
    def total(self) -> ModelUsage:
        """The usage of all models together."""
        return total(self.usage.values())

    def as_dict(self) -> dict[str, Any]:
        """The run as plain JSON values; times in ISO 8601."""
        return {
            "id": self.id,
            "question": self.question,
            "workflow": self.workflow,
            "model": self.model,
            "documents": [{"id": document_id, "name": name} for document_id, name in self.documents],
            "budget": dict(self.budget),
            "status": self.status,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "finished_at": None if self.finished_at is None else self.finished_at.isoformat(timespec="seconds"),
            "answer": None if self.answer is None else dict(self.answer),
            "error": self.error,
            "usage": {model: asdict(usage) for model, usage in self.usage.items()},
            "total": asdict(self.total),
        }


class Runs:
    """The runs in a store, those under way included."""

    def __init__(self, store: Store, journal: Journal, leases: Leases) -> None:
        self._store = store
        self._journal = journal
        self._leases = leases
        self._ids = RunIds()

    def start(
        self,
        question: str,
        workflow: str,
        model: str,
        documents: Sequence[tuple[str, str]],
        budget: Mapping[str, Any],
    ) -> str:
        """Record that a run begins; `documents` are ids and names. Returns its id: ids sort by time."""
        run_id = self._ids.next()
        row = (
            run_id,
            _utf8(question),
            workflow,
            model,
            json.dumps(list(documents)),
            json.dumps(dict(budget)),
            str(self._journal.owner),
            "running",
        )
        began = time.time()

        def insert(connection: Connection) -> None:
            values = (*row, self._by_store(connection, began), None, "", None)
            connection.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
            self._leases.take(connection, _lease(run_id))

        self._leases.hold(_lease(run_id))
        self._journal.post(insert)
        return run_id

    def resume(self, run_id: str) -> str:
        """Take over a run that nobody is at: it is this process's from here on. Returns its id.

        Of several processes that try, one does. Raises UnknownRunError, RunUnderWayError, RunEndedError.
        """
        self._journal.flush()
        with self._store.write() as connection:
            self._store.claim(connection, _lease(run_id))
            row = connection.execute("SELECT status, owner FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                raise UnknownRunError(self._store.path, f"no run {run_id!r}", _LISTED)
            owner = Owner.from_text(row[1])
            if row[0] == "running" and not self._is_dead(connection, run_id, owner):
                raise RunUnderWayError(
                    self._store.path,
                    f"run {run_id} is under way, in process {owner.pid} on {owner.host}",
                    "wait until it ends, or end that process",
                )
            if row[0] in ("answered", "not_found"):
                remedy = f"`lcdoc runs show {run_id}` shows its answer; ask again with --refresh for another"
                raise RunEndedError(self._store.path, f"run {run_id} came to its end", remedy)
            connection.execute(
                "UPDATE runs SET status = 'running', owner = ?, finished_at = NULL, error = '', answer = NULL"
                " WHERE id = ?",
                (str(self._journal.owner), run_id),
            )
            self._leases.take(connection, _lease(run_id))
        self._leases.hold(_lease(run_id))
        return run_id

    def cut_off(
        self,
        question: str,
        workflow: str | None,
        model: str,
        documents: Sequence[tuple[str, str]],
        *,
        since: datetime | None = None,
    ) -> Run | None:
        """The latest run of this question that died or was interrupted, if no later one came to an end.

        `workflow` None: whichever it was; `since`: of those that began then or later.
        """
        named, after = json.dumps(list(documents)), 0.0 if since is None else since.timestamp()
        rows = self._select(
            "WHERE substr(documents, 1, 100) = ? AND question = ? AND workflow = coalesce(?, workflow) AND model = ?"
            " AND documents = ? AND started_at >= ? ORDER BY started_at DESC, id DESC LIMIT 1",
            (named[:100], _utf8(question), workflow, model, named, after),
        )
        return rows[0] if rows and rows[0].status in {"died", "interrupted"} else None

    def record(self, run_id: str, model: str, totals: ModelUsage) -> None:
        """Record what a run's calls to one model have cost so far, all together. Cheap enough for every call."""
        row = (run_id, model, *astuple(totals))
        self._journal.post_latest(("run", run_id, model), lambda c: c.execute(_REPLACE_USAGE, row))

    def finish(self, run_id: str, status: Outcome, answer: Mapping[str, Any] | None = None, error: str = "") -> None:
        """Record how a run ended. `answer` is plain JSON values: TypeError or ValueError where it is not."""
        packed = None if answer is None else pack(json.dumps(dict(answer), allow_nan=False))
        ended, owner = time.time(), str(self._journal.owner)

        def update(connection: Connection) -> None:
            changed = connection.execute(
                "UPDATE runs SET status = ?, finished_at = ?, answer = ?, error = ? WHERE id = ? AND owner = ?",
                (status, self._by_store(connection, ended), packed, _utf8(error), run_id, owner),
            ).rowcount
            self._leases.end(connection, _lease(run_id))
            if not changed:
                _logger.warning("library %s: run %s, which ended, is not there, or another's", self._store.path, run_id)

        self._leases.let_go(_lease(run_id))
        self._journal.post(update)

    def list(self, limit: int = 20) -> List[Run]:
        """The latest runs, the latest first."""
        return self._select("ORDER BY started_at DESC, id DESC LIMIT ?", (limit,))

    def find(self, prefix: str) -> Run:
        """The one run whose id begins so. Raises UnknownRunError when there is none, or more than one."""
        prefix = prefix.lower()
        found = self._select("WHERE substr(id, 1, ?) = ? ORDER BY id LIMIT 2", (max(len(prefix), 1), prefix))
        if len(found) != 1:
            problem = f"more than one run begins with {prefix!r}" if found else f"no run {prefix!r}"
            raise UnknownRunError(self._store.path, problem, _LISTED)
        return found[0]

    def cost(self, since: datetime | None = None, by: By = "model") -> List[CostLine]:
        """What the runs begun since then have cost: by model, the most tokens first, else in the order of time."""
        self._journal.flush()
        after = 0.0 if since is None else since.timestamp()
        with self._store.read() as connection:
            rows = connection.execute(
                f"SELECT id, started_at, {_USAGE} FROM runs JOIN run_usage ON run = id WHERE started_at >= ?"
                " ORDER BY started_at, id",
                (after,),
            ).fetchall()
        return cost_lines(((row[0], row[1], row[2], _usage(row[3:])) for row in rows), by)

    def problems(self) -> List[str]:
        """What is wrong with the recorded runs, a line each."""
        problems: List[str] = []
        with self._store.read() as connection:
            for run_id, owner, *parts in connection.execute(f"SELECT id, owner, {_JSON} FROM runs ORDER BY id"):
                try:
                    _contents(*parts)
                    Owner.from_text(owner)
                except (sqlite3.DatabaseError, ValueError, TypeError) as damage:
                    problems.append(f"{self._store.path}: run {run_id} is damaged ({damage})")
        return problems

    def _select(self, which: str, values: tuple[Any, ...]) -> List[Run]:
        self._journal.flush()
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT id, question, workflow, model, status, owner, started_at, finished_at, error,"
                f" {_JSON} FROM runs {which}",
                values,
            ).fetchall()
            return [self._run_from(connection, row) for row in rows]

    def _run_from(self, connection: Connection, row: tuple[Any, ...]) -> Run:
        run_id, question, workflow, model, status, owner, started_at, finished_at, error, *parts = row
        try:
            documents, budget, answer = _contents(*parts)
            gone = status == "running" and self._is_dead(connection, run_id, Owner.from_text(owner))
        except (ValueError, TypeError) as problem:
            damaged = sqlite3.DatabaseError(f"run {run_id} cannot be read: {problem}")
            damaged.sqlite_errorname = "SQLITE_CORRUPT"
            raise damaged from problem
        usage = connection.execute(f"SELECT {_USAGE} FROM run_usage WHERE run = ? ORDER BY model", (run_id,)).fetchall()
        return Run(
            id=run_id,
            question=question,
            workflow=workflow,
            model=model,
            documents=documents,
            budget=budget,
            status="died" if gone else status,
            started_at=datetime.fromtimestamp(started_at, UTC),
            finished_at=None if finished_at is None else datetime.fromtimestamp(finished_at, UTC),
            answer=answer,
            error=error,
            usage={name: _usage(figures) for name, *figures in usage},
        )

    def _by_store(self, connection: Connection, at: float) -> float:
        """A time of this machine's clock, by that of the store: runs of several machines are told apart by it."""
        return at + self._store.now(connection) - time.time()

    def _is_dead(self, connection: Connection, run_id: str, owner: Owner) -> bool:
        """Whether its process is gone, for all that can be told from here."""
        if owner.is_here():
            return owner.is_gone()
        return self._leases.holder(connection, _lease(run_id)) is None


_JSON = "documents, budget, answer"
_USAGE = (
    "run_usage.model, calls, failed_calls, stored_calls, tokens_in, tokens_cached, tokens_out, cost_usd, seconds,"
    " estimated"
)
_REPLACE_USAGE = (
    f"INSERT INTO run_usage (run, {_USAGE.removeprefix('run_usage.')}) VALUES ({', '.join('?' * 11)})"
    " ON CONFLICT (run, model) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _USAGE.split(", ")[1:])
)


def _lease(run_id: str) -> str:
    return f"run/{run_id}"


def _contents(
    documents: str, budget: str, answer: bytes | None
) -> tuple[tuple[tuple[str, str], ...], dict[str, Any], dict[str, Any] | None]:
    return (
        tuple((document_id, name) for document_id, name in json.loads(documents)),
        dict(json.loads(budget)),
        None if answer is None else dict(json.loads(unpack(answer))),
    )


def _usage(figures: Sequence[Any]) -> ModelUsage:
    return ModelUsage(*(*figures[:-1], bool(figures[-1])))


def _utf8(text: str) -> str:
    """`text` as it can be stored: what a terminal gave that is no text is shown as question marks."""
    return text.encode("utf-8", "replace").decode()
