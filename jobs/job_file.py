"""A job as a TOML file. Paths in it are relative to the file, so that a folder with its job can be moved and shared.

Beside the fields of a Job it may have `questions`, a file of questions or several, and a task's `schema` may be the
name of a file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import fuzz, process

from lcdoc.documents import Limits
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import AskTask, Caps, ExtractTask, Job, SummarizeTask
from lcdoc.jobs.questions import extracted, read_questions
from lcdoc.jobs.sources import located
from lcdoc.workflows.row_files import text_of

_HEAD = "# A batch job of lcdoc. It is run, and gone on with, by: lcdoc batch run --job FILE\n"
_TASKS: Mapping[str, type[BaseModel]] = {"ask": AskTask, "summarize": SummarizeTask, "extract": ExtractTask}
_TABLES = ("caps", "per_document", "parsing")
_NOT_IN_FILES = {"password": "a password does not belong in this file; give it with --password"}
_FIELDS = [*(name for name in Job.model_fields if name not in _NOT_IN_FILES), "questions"]


def load(path: Path) -> Job:
    """The job of this file, its paths absolute. Raises JobError, naming the file and the key."""
    text = text_of(path, JobError)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        raise JobError(f"{path} is not TOML: {said[:1].lower()}{said[1:]}", "mend the line") from None
    folder = path.absolute().parent
    for name, why in _NOT_IN_FILES.items():
        if name in raw:
            raise JobError(f"{path}: {why}")
    questions = raw.pop("questions", [])
    questions = [questions] if isinstance(questions, str) else questions
    if not isinstance(questions, list) or not all(isinstance(one, str) for one in questions):
        raise JobError(f"{path}: questions is no name of a file", 'write questions = "questions.txt"')
    read = [task for one in questions for task in read_questions(folder / one)]
    tasks = raw.get("tasks", [])
    if isinstance(tasks, list):
        raw["tasks"] = [*read, *(_with_schema(folder, task) for task in tasks)]
    try:
        job = Job.model_validate(raw)
    except ValidationError as error:
        raise _misfit(path, raw, error.errors(include_url=False), len(read)) from None
    return job.changed(documents=located(job.documents, folder))


def _with_schema(folder: Path, task: Any) -> Any:
    if not isinstance(task, dict) or not isinstance(given := task.get("schema"), str):
        return task
    if given.lstrip().startswith("{"):
        return task
    return {**task, "schema": extracted(folder / given).json_schema}


def _misfit(path: Path, raw: dict[str, Any], errors: list[ErrorDetails], questions: int) -> JobError:
    """The first thing that does not fit, in words. `questions` are the tasks that come from files of questions."""
    # A misspelt key is also a missing one; the misspelling is what helps.
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    message = error["msg"][:1].lower() + error["msg"][1:]
    where, key, known = f"{path}: ", "", list[str]()
    match error["loc"]:
        case ("tasks",) if error["type"] in {"missing", "too_short"}:
            return JobError(f"{path} asks nothing", 'write questions = "questions.txt", or [[tasks]] with a question')
        case ("tasks", int(number), *rest):
            where += f"task {number + 1 - questions} "
            if len(rest) > 1:
                where, key, known = f"{where.rstrip()}: ", str(rest[1]), _keys(_TASKS[str(rest[0])])
        case (str(table), str(key)):
            where, known = f"{where}{table}.", _keys(Caps)
        case (str(table), *_) if table in _TABLES and not isinstance(raw[table], dict):
            return JobError(f"{path}: {table} is no table", f"write [{table}] and below it a line for each value")
        case ("parsing",):
            where += "parsing: "
        case (str(key), *_):
            known = _FIELDS
    return _of_key(where, key, error["type"], message, known) if key else JobError(f"{where}{message}")


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _of_key(where: str, key: str, kind: str, message: str, known: Sequence[str]) -> JobError:
    if kind == "extra_forbidden":
        close = process.extractOne(key, known, scorer=fuzz.ratio, score_cutoff=60)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return JobError(f"{where}{key} is not known", hint)
    if kind == "missing":
        return JobError(f"{where}{key} is missing")
    said = message.removeprefix("input ").replace("valid dictionary", "table").replace("valid tuple", "list")
    return JobError(f"{where}{key}: {message}" if said == message else f"{where}{key} {said}")


def to_toml(job: Job, folder: Path | None = None) -> str:
    """The job as `load` reads it from a file in `folder`: documents in there are named relative to it."""
    lines = [_HEAD]
    for name in ("name", "model", "kv", "profile", "embedder", "store", "attempts"):
        value = getattr(job, name)
        if value != Job.model_fields[name].default:
            lines.append(f"{name} = {_value(value)}")
    documents = [_relative(one, folder) for one in job.documents]
    lines.append("documents = [" + ", ".join(map(_value, documents)) + "]")
    for name in ("caps", "per_document"):
        lines += _table(name, {key: value for key, value in getattr(job, name) if value is not None})
    changed = {
        limit.name: value for limit in fields(Limits) if (value := getattr(job.parsing, limit.name)) != limit.default
    }
    lines += _table("parsing", changed)
    for task in job.tasks:
        lines += ["", "[[tasks]]", *_task_lines(task.model_dump(by_alias=True))]
    return "\n".join(lines) + "\n"


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in values.items())] if values else []


def _task_lines(task: dict[str, Any]) -> Iterator[str]:
    for key, value in task.items():
        if isinstance(value, dict):
            # JSON has null and keys of any kind, which tables have not.
            yield f"{key} = {_value(json.dumps(value, ensure_ascii=False))}"
        elif value != "":
            yield f"{key} = {_value(value)}"


def _relative(document: str, folder: Path | None) -> str:
    listed, path = ("@", document[1:]) if document.startswith("@") else ("", document)
    if folder is None or not Path(path).is_relative_to(folder.absolute()):
        return document
    relative = str(Path(path).relative_to(folder.absolute()))
    # A file may be called @list.txt, or -, and is no list for that.
    return f"./{relative}" if not listed and relative.startswith(("@", "-")) else listed + relative


def _value(value: Any) -> str:
    """A value of TOML. Its strings are JSON's, but for one character."""
    if isinstance(value, str):
        return re.sub("\x7f", r"\\u007F", json.dumps(value, ensure_ascii=False))
    return json.dumps(value)
