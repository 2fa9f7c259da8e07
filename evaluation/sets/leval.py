"""L-Eval: questions about calls, contracts, Wikipedia pages and papers, of a few thousand to many thousand words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_lines

_SPLITS = ("natural_question", "scientific_qa", "legal_contract_qa", "financial_qa")


def _load(folder: Path, split: str) -> Iterator[Reading]:
    for number, row in enumerate(json_lines(folder / "leval" / f"{split}.jsonl.gz"), 1):
        name = f"{split} {number}"
        cases = [
            Case(f"{number}/{place}", question.strip(), (answer,))
            for place, (question, answer) in enumerate(zip(row["instructions"], row["outputs"], strict=True), 1)
        ]
        paragraphs = [line for line in row["input"].split("\n\n") if line.strip()]
        yield Reading(name, tuple(cases), partial(document_of, name, paragraphs))


SET = QuestionSet(
    name="leval",
    about="questions about calls, contracts, Wikipedia pages and papers",
    licence="GPL-3.0",
    files=tuple(f"leval/{name}.jsonl.gz" for name in _SPLITS),
    splits=_SPLITS,
    load=_load,
)
