"""A user's own questions: a line of JSON or CSV each, with a file, a question, an answer, and where it stands.

Fields: `file` (relative to where the questions lie), `question`, `answer`; and where known `page` (a number from 1) and
`quote` (words of the file). In JSON each of the last three may be a list; in CSV several answers stand between `|`.
A question without an answer is one that the file does not answer. A page or a quote that the file does not have is told
when the file is read: scores would leave it out without a word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.agents.quotes import check_quote
from lcdoc.documents import Document, load
from lcdoc.evaluation.cases import Case, Reading
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.workflows.row_files import rows

SUFFIXES = (".jsonl", ".csv")
_KNOWN = ("file", "question", "answer", "page", "quote", "id")


def own_readings(path: Path, load_file: Callable[[Path], Document] = load) -> list[Reading]:
    """The files and questions that `path` names. Raises EvaluationError, naming the line; so do the readings'
    documents, for a page or a quote that is not there."""
    cases: dict[Path, dict[int, Case]] = defaultdict(dict)
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        case, file = _case(path, number, row)
        if (before := lines.setdefault(case.id, number)) != number:
            problem = f"{path}, line {number} has the id {case.id!r}, as line {before} has"
            raise EvaluationError(problem, "give each question an id of its own, or all of them none")
        cases[file][number] = case
    if not cases:
        raise EvaluationError(f"{path} has no questions", "give it a line for each, with file, question and answer")
    return [
        Reading(str(file), tuple(asked.values()), partial(_document, path, file, asked, load_file))
        for file, asked in cases.items()
    ]


def _document(path: Path, file: Path, asked: dict[int, Case], load_file: Callable[[Path], Document]) -> Document:
    document = load_file(file)
    for number, case in asked.items():
        where = f"{path}, line {number}"
        if absent := [page for page in case.pages if page > len(document.pages)]:
            problem = f"{where}: {file.name} has no page {absent[0]}, but {len(document.pages)} in all"
            raise EvaluationError(problem, "count its pages from 1, whatever is printed on them")
        if missing := [quote for quote in case.quotes if check_quote(document, quote) is None]:
            raise EvaluationError(f"{where}: {missing[0]!r} is not in {file.name}", "quote its own words")
    return document


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, row in rows(path, EvaluationError):
        if path.suffix.lower() == ".csv":
            row["answer"] = row.get("answer", "").split("|")
        yield number, row


def _case(path: Path, number: int, row: Any) -> tuple[Case, Path]:
    where = f"{path}, line {number}"
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) and row[key].strip() for key in ("file", "question")
    ):
        raise EvaluationError(f"{where} has no file or no question", f"give it {', '.join(_KNOWN[:3])}")
    if unknown := [str(key) for key in row if key not in _KNOWN]:
        raise EvaluationError(f"{where} has {unknown[0]!r}", f"known are {', '.join(_KNOWN)}")
    file = path.parent / row["file"]
    if not file.is_file():
        raise EvaluationError(f"{where}: {file} is not there", "name a file relative to the questions")
    return Case(
        str(row.get("id", number)),
        row["question"].strip(),
        _texts(where, "answer", row),
        tuple(_page(where, page) for page in _listed(row.get("page"))),
        _texts(where, "quote", row),
    ), file


def _texts(where: str, key: str, row: dict[str, Any]) -> tuple[str, ...]:
    values = _listed(row.get(key))
    if odd := [value for value in values if not isinstance(value, str | int | float)]:
        raise EvaluationError(f"{where}: {key} {odd[0]!r} is no text", "give it a text, or a list of texts")
    return tuple(text for value in values if (text := str(value).strip()))


def _page(where: str, value: Any) -> int:
    if isinstance(value, bool | float) or not re.fullmatch(r"\s*0*[1-9][0-9]{0,8}\s*", str(value)):
        raise EvaluationError(f"{where}: page {value!r} is not a number from 1 up", "count pages from 1")
    return int(value)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
