"""TAT-QA: tables of annual reports with the paragraphs around them. Eight extracts make a document; each paragraph and
each table is a page. Many answers are computed; the derivation is no part of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_of

_JOINED = 8


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    extracts = json_of(folder / "tatqa" / "tatqa_dataset_dev.json")
    for first in range(0, len(extracts), _JOINED):
        pages: list[str] = []
        cases: list[Case] = []
        for extract in extracts[first : first + _JOINED]:
            numbers: dict[str, int] = {}
            for paragraph in sorted(extract["paragraphs"], key=lambda one: one["order"]):
                pages.append(paragraph["text"])
                numbers[str(paragraph["order"])] = len(pages)
            pages.append(_table(extract["table"]["table"]))
            numbers["table"] = len(pages)
            cases += [_case(asked, numbers) for asked in extract["questions"]]
        name = f"extracts {first + 1} to {min(first + _JOINED, len(extracts))}"
        yield Reading(name, tuple(cases), partial(document_of, name, pages))


def _table(rows: list[list[str]]) -> str:
    lines = (" ".join(cell.strip() for cell in row if cell.strip()) for row in rows)
    return "\n".join(line for line in lines if line)


def _case(asked: dict[str, Any], numbers: dict[str, int]) -> Case:
    pages = {numbers[str(order)] for order in asked["rel_paragraphs"] if str(order) in numbers}
    if "table" in asked["answer_from"]:
        pages.add(numbers["table"])
    listed = asked["answer"] if isinstance(asked["answer"], list) else [asked["answer"]]
    plain = ", ".join(str(one) for one in listed)
    # "4.2" and "4.2 million" are both how such an answer is given.
    references = (plain, f"{plain} {asked['scale']}") if asked["scale"] else (plain,)
    several = asked["answer_type"] == "multi-span"
    return Case(asked["uid"], asked["question"].strip(), references, tuple(sorted(pages)), several=several)


SET = QuestionSet(
    name="tatqa",
    about="questions about tables and text of annual reports, many to be computed",
    licence="CC BY 4.0",
    files=("tatqa/tatqa_dataset_dev.json",),
    splits=("dev",),
    load=_load,
)
