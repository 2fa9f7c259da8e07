"""LooGLE: long papers, articles and screenplays with questions whose evidence is near or far apart, and summaries.

The parts of a cloze are one question each.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_lines

_SUMMARY = "longdep_summarization"


def _load(folder: Path, split: str) -> Iterator[Reading]:
    for row in json_lines(folder / "loogle" / f"{split}.jsonl"):
        name = row["title"]
        pages = [line for line in row["input"].split("\n") if line.strip()]
        if split == _SUMMARY:
            cases = [Case(name, "Summarize the document.", (row["output"],), several=True)]
        else:
            pairs = ast.literal_eval(row["qa_pairs"])
            cases = [case for number, pair in enumerate(pairs, 1) for case in _cases(f"{name}/{number}", pair)]
        yield Reading(name, tuple(cases), partial(document_of, name, pages))


def _cases(identity: str, pair: dict[str, Any]) -> Iterator[Case]:
    answer = str(pair["A"])
    if not answer.startswith("{'<mask-"):
        yield Case(identity, pair["Q"].strip(), (answer,), quotes=_quotes(pair.get("S", "")))
        return
    for mask, word in ast.literal_eval(answer).items():
        question = f"Which name or figure belongs in the place of {mask}? {pair['Q'].strip()}"
        yield Case(f"{identity}{mask}", question, (str(word),))


def _quotes(evidence: str | list[str]) -> tuple[str, ...]:
    """The sentences of the evidence: a list, one spelt as in Python, or a single one."""
    if isinstance(evidence, str) and evidence.startswith("["):
        evidence = ast.literal_eval(evidence)
    listed = [evidence] if isinstance(evidence, str) else evidence
    return tuple(str(one) for one in listed if one)


SET = QuestionSet(
    name="loogle",
    about="questions about long papers, articles and screenplays",
    licence="MIT",
    files=tuple(f"loogle/{name}.jsonl" for name in ("shortdep_qa", "longdep_qa", "shortdep_cloze", _SUMMARY)),
    splits=("shortdep_qa", "longdep_qa", "shortdep_cloze", _SUMMARY),
    load=_load,
)
