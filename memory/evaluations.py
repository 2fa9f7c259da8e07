"""Evaluations: questions whose answers are known, put to a reader, and how it did on each.

An evaluation that was cut off is gone on with by whoever begins the same one again: see `Evaluations.begin`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lcdoc.memory.database import Database
from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.journal import Journal
from lcdoc.memory.owner import Owner


class UnknownEvaluationError(LibraryError):
    """The library holds no evaluation of that id or prefix, or more than one."""


class EvaluationUnderWayError(LibraryError):
    """Another process is at this evaluation."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One reader on one set of questions."""

    id: str
    settings: Mapping[str, Any]
    """What was asked of whom, as plain JSON values: the same again is the same evaluation."""
    questions: int
    """How many it is to ask."""
    answered: int
    started_at: datetime
    finished_at: datetime | None


class Evaluations:
    """The evaluations in a library, with an item for each question that was asked."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    def begin(self, settings: Mapping[str, Any], questions: int) -> str:
        """The id of a new evaluation, or of the latest one of these settings if that did not come to its end.

        It is this process's from here on. Raises EvaluationUnderWayError.
        """
        text = json.dumps(dict(settings), sort_keys=True)
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT id, owner FROM evaluations WHERE settings = ? AND finished_at IS NULL"
                " ORDER BY started_at DESC LIMIT 1",
                (text,),
            ).fetchone()
            if row is None:
                evaluation_id = secrets.token_hex(4)
                values = (evaluation_id, text, questions, str(self._journal.owner), time.time(), None)
                connection.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?)", values)
                return evaluation_id
            found = str(row[0])
            self._check_left(found, row[1])
            connection.execute("UPDATE evaluations SET owner = ? WHERE id = ?", (str(self._journal.owner), found))
        return found

    def remove(self, evaluation_id: str) -> None:
        """Forget an evaluation and its items. Raises EvaluationUnderWayError where another process is at it."""
        with self._database.write() as connection:
            for (owner,) in connection.execute(
                "SELECT owner FROM evaluations WHERE id = ? AND finished_at IS NULL", (evaluation_id,)
            ):
                self._check_left(evaluation_id, owner)
            connection.execute("DELETE FROM evaluations WHERE id = ?", (evaluation_id,))

    async def keep(self, evaluation_id: str, name: str, item: Mapping[str, Any]) -> None:
        """Keep what came of a question, in the place of an earlier item of this name. It is kept when this returns."""
        packed = pack(json.dumps(dict(item), ensure_ascii=False))
        row = (evaluation_id, name, packed)
        await self._journal.write(lambda c: c.execute("INSERT OR REPLACE INTO evaluation_items VALUES (?, ?, ?)", row))

    def finish(self, evaluation_id: str) -> None:
        """Every question was asked."""
        with self._database.write() as connection:
            connection.execute("UPDATE evaluations SET finished_at = ? WHERE id = ?", (time.time(), evaluation_id))

    def items(self, evaluation_id: str) -> dict[str, dict[str, Any]]:
        """The items by name, in the order in which they were kept."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name, item FROM evaluation_items WHERE evaluation = ? ORDER BY rowid", (evaluation_id,)
            ).fetchall()
        return {name: json.loads(unpack(item)) for name, item in rows}

    def list(self, limit: int = 20) -> List[Evaluation]:
        """The latest evaluations, the latest first."""
        return self._select("ORDER BY started_at DESC LIMIT ?", (limit,))

    def find(self, prefix: str) -> Evaluation:
        """The one evaluation whose id begins so. Raises UnknownEvaluationError."""
        prefix = prefix.lower()
        found = self._select("WHERE substr(id, 1, ?) = ? LIMIT 2", (max(len(prefix), 1), prefix))
        if len(found) != 1:
            problem = f"more than one evaluation begins with {prefix!r}" if found else f"no evaluation {prefix!r}"
            raise UnknownEvaluationError(self._database.path, problem, "`lcdoc eval runs` shows what is there")
        return found[0]

    def problems(self) -> List[str]:
        """What is wrong with the evaluations kept, a line each."""
        problems: List[str] = []
        with self._database.read() as connection:
            for evaluation_id, settings, owner in connection.execute("SELECT id, settings, owner FROM evaluations"):
                try:
                    json.loads(settings)
                    Owner.from_text(owner)
                    items = connection.execute(
                        "SELECT item FROM evaluation_items WHERE evaluation = ?", (evaluation_id,)
                    )
                    for (item,) in items:
                        json.loads(unpack(item))
                except (sqlite3.DatabaseError, ValueError, TypeError) as damage:
                    problems.append(f"{self._database.path}: evaluation {evaluation_id} is damaged ({damage})")
        return problems

    def _check_left(self, evaluation_id: str, owned_by: str) -> None:
        """Raises EvaluationUnderWayError where another process is at the evaluation."""
        owner = Owner.from_text(owned_by)
        if owned_by != str(self._journal.owner) and not owner.is_gone():
            problem = f"evaluation {evaluation_id} is under way, in process {owner.pid} on {owner.host}"
            raise EvaluationUnderWayError(self._database.path, problem, "wait until it ends, or end that process")

    def _select(self, which: str, values: tuple[Any, ...]) -> List[Evaluation]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id, settings, questions, started_at, finished_at,"
                " (SELECT count(*) FROM evaluation_items WHERE evaluation = id)"
                f" FROM evaluations {which}",
                values,
            ).fetchall()
        return [
            Evaluation(
                row[0],
                json.loads(row[1]),
                row[2],
                row[5],
                datetime.fromtimestamp(row[3], UTC),
                None if row[4] is None else datetime.fromtimestamp(row[4], UTC),
            )
            for row in rows
        ]
