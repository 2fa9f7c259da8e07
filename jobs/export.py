"""The rows of a job as files: lines of JSON, a table for spreadsheets, or Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from lcdoc.jobs.atomic_file import replaced
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import ExtractTask, Task
from lcdoc.jobs.result_log import line_of
from lcdoc.jobs.results import Result

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

_CELL_CHARACTERS = 32_000
"""Spreadsheets take a little more, and spill what is longer into other cells."""
_FORMULA = re.compile(r"(^|[;\n])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""Where a cell would be computed: at its beginning, and where one begins if columns are parted at semicolons."""
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)*\s?%?")


def format_of(path: Path, wanted: Format | None = None) -> Format:
    """`wanted`, else what the suffix of `path` says. Raises JobError where it says nothing."""
    if wanted is not None:
        return wanted
    for known in FORMATS:
        if path.suffix.lower() == f".{known}":
            return known
    raise JobError(f"{path} has no suffix that names a format", f"give it .{', .'.join(FORMATS)}, or name --format")


def export(results: Iterable[Result], path: Path, form: Format, tasks: Sequence[Task]) -> int:
    """Write the rows to `path`, whole or not at all; returns how many. `tasks` are the job's: what is extracted has
    columns of its own in a table. Raises JobError where it cannot be written, or pyarrow is missing for Parquet."""
    if not path.absolute().parent.is_dir():
        raise JobError(f"{path.parent} is not a folder", "make it, or name another file")
    with replaced(path) as stream:
        return WRITERS[form](results, stream, tasks)


def write_jsonl(results: Iterable[Result], stream: BinaryIO, _tasks: Sequence[Task]) -> int:
    """A line for each row, as docs/json.md has it."""
    count = 0
    for result in results:
        stream.write(line_of(result))
        count += 1
    return count


def write_csv(results: Iterable[Result], stream: BinaryIO, tasks: Sequence[Task]) -> int:
    """A line for each row, in columns that spreadsheets take: no cell is a formula, none is too long for them."""
    values = list(_value_columns(tasks))
    # Spreadsheets take a file for UTF-8 only when it says so.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, (*_COLUMNS, *(f"value.{'.'.join(place)}" for place in values))))
    count = 0
    for count, result in enumerate(results, 1):  # noqa: B007 - how many there were is returned
        cells = (*(cell(result) for cell in _COLUMNS.values()), *(_at(result.value, place) for place in values))
        writer.writerow(map(_cell, cells))
    text.detach()
    return count


def _citations(result: Result) -> list[Mapping[str, Any]]:
    return [citation for claim in result.claims for citation in claim.get("citations", ())]


def _pages(result: Result) -> str:
    return ", ".join(map(str, sorted({page for citation in _citations(result) for page in citation["pages"]})))


_COLUMNS: Mapping[str, Callable[[Result], Any]] = {
    "job": lambda result: result.job,
    "document": lambda result: result.document.number,
    "path": lambda result: result.document.path,
    "name": lambda result: result.document.name,
    "document_id": lambda result: result.document.id,
    "document_pages": lambda result: result.document.pages,
    "task": lambda result: result.task.id,
    "kind": lambda result: result.task.kind,
    "question": lambda result: result.task.question,
    "found": lambda result: result.found,
    "partial": lambda result: result.partial,
    "answer": lambda result: result.answer,
    "confidence": lambda result: round(result.confidence, 2),
    "pages": _pages,
    "quotes": lambda result: "\n".join(citation["quote"] for citation in _citations(result)),
    "error": lambda result: result.error,
    "workflow": lambda result: result.workflow,
    "model": lambda result: result.model,
    "calls": lambda result: result.usage.calls,
    "tokens_in": lambda result: result.usage.tokens_in,
    "tokens_out": lambda result: result.usage.tokens_out,
    "cost_usd": lambda result: result.usage.cost_usd,
    "seconds": lambda result: result.seconds,
    "run_id": lambda result: result.run_id,
    "worker": lambda result: result.worker,
    "finished_at": lambda result: result.finished_at.isoformat(timespec="seconds"),
}


def _value_columns(tasks: Sequence[Task]) -> Iterator[tuple[str, ...]]:
    """The places of single values in what the job extracts: `("landlord", "name")`."""
    seen: dict[tuple[str, ...], None] = {}
    for task in tasks:
        if isinstance(task, ExtractTask):
            for name, shape in task.json_schema.get("properties", {}).items():
                inner = shape.get("properties", {}) if shape.get("type") == "object" else {}
                places: list[tuple[str, ...]] = [(name, one) for one in inner]
                seen.update(dict.fromkeys(places or [(name,)]))
    yield from seen


def _at(value: Any, place: Sequence[str]) -> Any:
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(c if c == "\n" or c.isprintable() else " " for c in text)
    if not _NUMBER.fullmatch(text):
        text = _FORMULA.sub(r"\1\2'", text)
    # Last, since what was put before formulas counts, too.
    return text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + "\u2026"


def _write_parquet(results: Iterable[Result], stream: BinaryIO, tasks: Sequence[Task]) -> int:
    from lcdoc.jobs.parquet import write_parquet

    return write_parquet(results, stream, tasks)


WRITERS: Mapping[Format, Callable[[Iterable[Result], BinaryIO, Sequence[Task]], int]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": _write_parquet,
}
