"""Files a user wrote by hand or exported from a spreadsheet: a row a line, as CSV or as lines of JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcdoc.workflows.errors import WorkflowError


def text_of(path: Path, error: type[WorkflowError]) -> str:
    """The file's text. Raises `error` for one that cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror})", "name a file in UTF-8") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not UTF-8 text ({problem.reason})", "save it as UTF-8") from problem


def rows(path: Path, error: type[WorkflowError]) -> Iterator[tuple[int, Any]]:
    """The rows of a .csv, or of a file with a line of JSON for each, with the line they end on, from 1.

    A row of a CSV is a dict without its empty cells; one of JSON is whatever stands there. Raises `error`, naming the
    line.
    """
    text = text_of(path, error)
    yield from _csv_rows(path, text, error) if path.suffix.lower() == ".csv" else _json_rows(path, text, error)


def _csv_rows(path: Path, text: str, error: type[WorkflowError]) -> Iterator[tuple[int, dict[str, str]]]:
    # Strict, since a quotation mark that is never closed would swallow the rows behind it.
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    sound = 0
    try:
        if reader.fieldnames is None:
            return
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames]
        sound = reader.line_num
        for row in reader:
            sound = reader.line_num
            if None in row:
                raise error(
                    f"{path}, line {sound} has more cells than the first line",
                    "put text with commas in quotation marks",
                )
            yield sound, {key: value for key, value in row.items() if value}
    except csv.Error as problem:
        raise error(f"{path}, line {sound + 1} is not CSV ({problem})", "mend the line") from problem


def _json_rows(path: Path, text: str, error: type[WorkflowError]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            # Half of a surrogate pair is JSON, but no text.
            json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as problem:
            said = getattr(problem, "msg", problem)
            raise error(f"{path}, line {number} is not JSON ({said})", "mend the line") from problem
        yield number, row
