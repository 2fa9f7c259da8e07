"""Files of questions, and what `--ask` and `--extract` mean: text given on the spot, or a file with it.

A .txt file has a question a line; what begins with # is a comment. A .csv or .jsonl file has a row for each, with
`question`, and where wanted `id` and `workflow`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lcdoc.jobs.errors import JobError, misfit
from lcdoc.jobs.job import MAX_TASKS, AskTask, ExtractTask
from lcdoc.workflows.row_files import rows, text_of

SUFFIXES = (".txt", ".csv", ".jsonl")
_KNOWN = ("question", "id", "workflow")
_LONGEST_NAME = 255
"""Bytes of a file's name; a longer text is a question."""


def asked(given: str, *, workflow: str | None = None) -> list[AskTask]:
    """The questions that `--ask` means: those of a file of that name, or the text itself. `workflow` is for those that
    name none. Raises JobError, naming the file and the line."""
    path = Path(given)
    named = path.suffix.lower() in SUFFIXES
    if len(given.encode(errors="replace")) <= _LONGEST_NAME and (path.is_file() or (named and path.exists())):
        return read_questions(path, workflow=workflow)
    if named and not any(character.isspace() for character in given):
        raise JobError(f"{given} is not there", "name a file of questions, or ask a question in quotation marks")
    if not given.strip():
        raise JobError("the question is empty", 'try: --ask "When does the lease end?"')
    return [_task("the question", {"question": given}, workflow)]


def read_questions(path: Path, *, workflow: str | None = None) -> list[AskTask]:
    """The questions of a file, in order. Raises JobError, naming the line."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise JobError(f"{path} is not a file of questions", f"give it the suffix {', '.join(SUFFIXES)}")
    tasks, ids = [], dict[str, int]()
    for number, row in _lines(path) if suffix == ".txt" else rows(path, JobError):
        task = _task(f"{path}, line {number}", row, workflow)
        if task.id and (before := ids.setdefault(task.id, number)) != number:
            problem = f"{path}, line {number} has the id {task.id!r}, as line {before} has"
            raise JobError(problem, "give each question an id of its own, or none")
        tasks.append(task)
        if len(tasks) > MAX_TASKS:
            raise JobError(f"{path} has more than {MAX_TASKS:,} questions", "give it to several jobs")
    if not tasks:
        raise JobError(f"{path} has no questions", "give it a line for each")
    return tasks


def extracted(path: Path) -> ExtractTask:
    """The task to fill in the schema of a JSON file. Raises SchemaError, naming the file."""
    from lcdoc.workflows.extract_request import read_schema

    return ExtractTask(schema=read_schema(path).schema.to_json())


def _lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    lines = enumerate(text_of(path, JobError).split("\n"), 1)
    return [
        (number, {"question": line}) for number, line in lines if line.strip() and not line.lstrip().startswith("#")
    ]


def _task(where: str, row: Any, workflow: str | None) -> AskTask:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not row["question"].strip():
        raise JobError(f"{where} has no question", f"give it {', '.join(_KNOWN)}")
    if unknown := [str(key) for key in row if key not in _KNOWN]:
        raise JobError(f"{where} has {unknown[0]!r}", f"known are {', '.join(_KNOWN)}")
    fields = {key: value for key, value in row.items() if value is not None}
    if isinstance(fields.get("id"), int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    if workflow is not None:
        fields.setdefault("workflow", workflow)
    try:
        return AskTask.model_validate(fields)
    except ValidationError as error:
        raise misfit(error, f"{where}: ") from None
