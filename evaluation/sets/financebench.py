"""FinanceBench: questions about filings of listed companies, most of whose answers have to be computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.documents import load
from lcdoc.evaluation.cases import Case, QuestionSet, Reading
from lcdoc.evaluation.sets.files import json_lines


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    cases: dict[str, list[Case]] = defaultdict(list)
    for row in json_lines(folder / "financebench" / "questions.jsonl"):
        pages = sorted({evidence["evidence_page_num"] + 1 for evidence in row["evidence"]})
        case = Case(row["financebench_id"], row["question"].strip(), (str(row["answer"]),), tuple(pages))
        cases[row["doc_name"]].append(case)
    for name, asked in cases.items():
        path = folder / "financebench" / "pdfs" / f"{name}.pdf"
        if path.exists():
            yield Reading(name, tuple(asked), partial(load, path))


SET = QuestionSet(
    name="financebench",
    about="questions about filings (PDF) that take figures of several places",
    licence="CC BY-NC 4.0",
    files=("financebench/questions.jsonl", "financebench/pdfs/*.pdf"),
    splits=("open",),
    load=_load,
)
