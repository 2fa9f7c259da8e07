"""Evaluations as files: a table in Markdown, a line for each question in CSV, everything in JSON, or a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.layout import laid_out
from lcdoc.evaluation.needle_map import is_map, map_rows
from lcdoc.evaluation.report import Result, overview, table
from lcdoc.evaluation.scoring import METRICS

_COLUMNS = ("document", "question", "references", "answer", "found", "confidence", "pages", "error")


def written(results: Sequence[Result], path: Path) -> None:
    """Write the results to `path`, whose suffix says how: .md, .csv (of the first), .json, else a picture.

    Raises EvaluationError for a file that cannot be written, and what `plot` raises.
    """
    if path.suffix not in _TEXTS:
        from lcdoc.evaluation.plot import plot

        plot(results, path)
        return
    try:
        path.write_text(_TEXTS[path.suffix](results), encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror})", "name another file") from error


def check_target(path: Path) -> None:
    """Raises EvaluationError where `written` could not write to `path`: to be told before an hour of questions."""
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"{path.parent} is not a folder", "make it, or name another file")
    if path.suffix not in _TEXTS:
        from lcdoc.evaluation.plot import check_format

        check_format(path)


def markdown_of(results: Sequence[Result]) -> str:
    """A column for each result, or a row where they are of several sets; and the maps of planted facts."""
    one_set = len({result.subject for result in results}) == 1
    parts = [(table if one_set else overview)(results, markdown=True)]
    for result in filter(is_map, results):
        parts += [f"Facts found, {result.title}:", laid_out(map_rows(result), markdown=True)]
    return "\n\n".join(parts) + "\n"


def csv_of(result: Result) -> str:
    """A line for each question, with everything that is known of it."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["id", *_COLUMNS, *METRICS])
    for name, item in result.items.items():
        values = ["|".join(map(str, item[key])) if isinstance(item[key], list) else item[key] for key in _COLUMNS]
        writer.writerow([name, *values, *(item["figures"].get(metric, "") for metric in METRICS)])
    return lines.getvalue()


def json_of(result: Result) -> dict[str, Any]:
    """Plain JSON values: what was asked of whom, the figures with their intervals, every answer."""
    evaluation = result.evaluation
    return {
        "id": evaluation.id,
        "settings": dict(evaluation.settings),
        "questions": evaluation.questions,
        "answered": evaluation.answered,
        "failed": result.failed,
        "figures": {name: asdict(estimate) for name, estimate in result.estimates.items()},
        "items": {name: dict(item) for name, item in result.items.items()},
    }


_TEXTS: dict[str, Callable[[Sequence[Result]], str]] = {
    ".md": markdown_of,
    ".csv": lambda results: csv_of(results[0]),
    ".json": lambda results: json.dumps([json_of(result) for result in results], ensure_ascii=False, indent=2) + "\n",
}
