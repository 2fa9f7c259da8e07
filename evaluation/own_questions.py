"""A user's own questions: a line of JSON or CSV each, with a file, a question, an answer, and where it stands.

Fields: `file` (relative to where the questions lie), `question`, `answer`; and where known `page` (a number from 1) and
`quote` (words of the file). In JSON each of the last three may be a list; in CSV several answers stand between `|`.
A question without an answer is one that the file does not answer.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.documents import Document, load
from lcdoc.evaluation.cases import Case, Reading
from lcdoc.evaluation.errors import EvaluationError

SUFFIXES = (".jsonl", ".csv")
_KNOWN = ("file", "question", "answer", "page", "quote", "id")


def own_readings(path: Path, load_file: Callable[[Path], Document] = load) -> list[Reading]:
    """The files and questions that `path` names. Raises EvaluationError, naming the line."""
    cases: dict[Path, list[Case]] = defaultdict(list)
    for number, row in _rows(path):
        case, file = _case(path, number, row)
        cases[file].append(case)
    if not cases:
        raise EvaluationError(f"{path} has no questions", "give it a line for each, with file, question and answer")
    return [Reading(str(file), tuple(asked), partial(load_file, file)) for file, asked in cases.items()]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read ({error})", "name a file in UTF-8") from error
    if path.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        yield from ((reader.line_num, {key: value for key, value in row.items() if value}) for row in reader)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise EvaluationError(f"{path}, line {number} is not JSON ({error.msg})", "mend the line") from error
        yield number, row


def _case(path: Path, number: int, row: dict[str, Any]) -> tuple[Case, Path]:
    where = f"{path}, line {number}"
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("file", "question")):
        raise EvaluationError(f"{where} has no file or no question", f"give it {', '.join(_KNOWN[:3])}")
    if unknown := [str(key) for key in row if key not in _KNOWN]:
        raise EvaluationError(f"{where} has {unknown[0]!r}", f"known are {', '.join(_KNOWN)}")
    file = path.parent / row["file"]
    if not file.is_file():
        raise EvaluationError(f"{where}: {file} is not there", "name a file relative to the questions")
    answers = row.get("answer", ())
    if path.suffix == ".csv" and answers:
        answers = answers.split("|")
    try:
        pages = tuple(int(page) for page in _listed(row.get("page", ())))
    except ValueError as error:
        raise EvaluationError(f"{where}: page {row['page']!r} is not a number", "count pages from 1") from error
    return Case(
        str(row.get("id", number)),
        row["question"].strip(),
        tuple(text for answer in _listed(answers) if (text := str(answer).strip())),
        pages,
        tuple(str(quote) for quote in _listed(row.get("quote", ()))),
    ), file


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
