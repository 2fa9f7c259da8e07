"""OHRBench: questions about law texts, manuals and textbooks, each about one page of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_lines, json_of


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    cases: dict[str, list[Case]] = defaultdict(list)
    for row in json_of(folder / "ohr_bench" / "questions.json.gz"):
        case = Case(row["ID"], row["questions"].strip(), (str(row["answers"]),), (row["evidence_page_no"] + 1,))
        cases[row["doc_name"]].append(case)
    for row in json_lines(folder / "ohr_bench" / "pages.jsonl.gz"):
        pages = [page["text"] for page in sorted(row["pages"], key=lambda page: int(page["page_idx"]))]
        yield Reading(row["doc_name"], tuple(cases[row["doc_name"]]), partial(document_of, row["doc_name"], pages))


SET = QuestionSet(
    name="ohr_bench",
    about="questions about single pages of law texts, manuals and textbooks",
    licence="none stated",
    files=("ohr_bench/pages.jsonl.gz", "ohr_bench/questions.json.gz"),
    splits=("all",),
    load=_load,
)
