"""What a job yields: a row for each document and task, the same in the library, in JSONL, in Parquet and in Python.

A failure is a row too. Its `error` says why in one line, and everything that was not found out is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lcdoc.jobs.job import Task
from lcdoc.memory.job_records import ResultRow
from lcdoc.workflows.answer import Answer, Usage

SCHEMA = "lcdoc.result/1"
"""Names the JSON form; the number changes when a field is renamed or removed (docs/json.md)."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _writable(name: str) -> str:
    """A file's name as text that can be written: what is no UTF-8 in it becomes a question mark."""
    return name.encode("utf-8", "replace").decode()


class ResultDocument(_Value):
    """The document that was asked."""

    number: int
    """Its place in the job, from 1."""
    path: Annotated[str, BeforeValidator(_writable)]
    name: Annotated[str, BeforeValidator(_writable)] = ""
    id: str | None = None
    """None: it could not be read."""
    pages: int | None = None


class ResultTask(_Value):
    """What was asked of it."""

    number: int
    """Its place in the job, from 1."""
    id: str
    kind: Literal["ask", "summarize", "extract"]
    question: str = ""

    @classmethod
    def of(cls, number: int, task: Task) -> ResultTask:
        """`number` counts from 1."""
        return cls(number=number, id=task.id, kind=task.kind, question=task.question)


class Result(_Value):
    """One row."""

    job: str
    document: ResultDocument
    task: ResultTask
    found: bool = False
    partial: bool = False
    answer: str = ""
    """The claims as text; empty where nothing was found."""
    value: Any = None
    """Of an extraction: the object."""
    claims: tuple[dict[str, Any], ...] = ()
    """With their citations, as in an answer."""
    confidence: float = 0.0
    workflow: str = ""
    model: str = ""
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    seconds: float = 0.0
    """Wall time of answering."""
    error: str = ""
    run_id: str = ""
    worker: str = ""
    finished_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def answered(
        cls,
        job: str,
        document: ResultDocument,
        task: ResultTask,
        answer: Answer,
        *,
        seconds: float,
        worker: str = "",
    ) -> Result:
        """The row of an answer."""
        plain = answer.to_json()
        return cls(
            job=job,
            document=document,
            task=task,
            found=answer.found,
            partial=answer.partial,
            answer=answer.text,
            value=plain.get("value"),
            claims=tuple(plain["claims"]),
            confidence=answer.confidence,
            workflow=answer.workflow,
            model=answer.model,
            warnings=answer.warnings,
            usage=answer.usage,
            seconds=round(seconds, 3),
            run_id=answer.run_id,
            worker=worker,
        )

    @classmethod
    def failed(
        cls,
        job: str,
        document: ResultDocument,
        task: ResultTask,
        error: str,
        *,
        usage: Usage | None = None,
        seconds: float = 0.0,
        run_id: str = "",
        worker: str = "",
    ) -> Result:
        """The row of a task that came to nothing; `usage` is what it cost all the same."""
        return cls(
            job=job,
            document=document,
            task=task,
            error=" ".join(error.split()) or "failed without saying why",
            usage=usage or Usage(),
            seconds=round(seconds, 3),
            run_id=run_id,
            worker=worker,
        )

    @classmethod
    def of_kept(cls, kept: ResultRow, job: str, tasks: Sequence[Task]) -> Result:
        """What the job table keeps: the row that a worker made, or that of a task no worker has done."""
        if kept.row is not None:
            return cls.of(kept.row)
        document = ResultDocument(
            number=kept.document,
            path=kept.path,
            name=kept.name or Path(kept.path).name,
            id=kept.document_id or None,
            pages=kept.pages or None,
        )
        row = cls.failed(
            job,
            document,
            ResultTask.of(kept.task, tasks[kept.task - 1]),
            kept.error,
            seconds=kept.seconds,
            worker=kept.worker,
        )
        return row.model_copy(update={"finished_at": kept.finished_at})

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Result:
        """The row that `to_json` gave."""
        return cls.model_validate(row)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the form that docs/json.md describes."""
        return {"schema": SCHEMA, **self.model_dump(mode="json")}
