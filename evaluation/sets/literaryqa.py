"""LiteraryQA: questions about whole novels, two answers each in a reader's own words. The books lie in `books/`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.documents import load
from lcdoc.evaluation.cases import Case, QuestionSet, Reading
from lcdoc.evaluation.sets.files import json_lines

_FILES = {"validation": "validation.jsonl", "test": "test_visible.jsonl"}


def _load(folder: Path, split: str) -> Iterator[Reading]:
    with (folder / "literaryqa" / "books_available.tsv").open(encoding="utf-8", newline="") as lines:
        files = {row["gutenberg_id"]: folder / row["file"] for row in csv.DictReader(lines, delimiter="\t")}
    for book in json_lines(folder / "literaryqa" / _FILES[split]):
        path = files.get(book["gutenberg_id"])
        if path is None or not path.exists():
            continue
        cases = [
            Case(f"{book['gutenberg_id']}/{number}", asked["question"].strip(), tuple(asked["answers"]))
            for number, asked in enumerate(book["qas"], 1)
        ]
        yield Reading(book["title"], tuple(cases), partial(load, path))


SET = QuestionSet(
    name="literaryqa",
    about="questions about whole novels, in readers' own words",
    licence="CC BY-NC 4.0; the books are in the public domain in the United States",
    files=("literaryqa/books_available.tsv", "literaryqa/validation.jsonl", "literaryqa/test_visible.jsonl"),
    splits=("validation", "test"),
    load=_load,
)
