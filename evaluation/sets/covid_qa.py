"""COVID-QA: questions about scientific papers, answered by spans. A paragraph of a paper is a page.

Some offsets are wrong, so an answer is looked for in the text; of several places the one nearest to the offset counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.parts import part_of
from lcdoc.evaluation.sets.files import json_of


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    for number, paper in enumerate(json_of(folder / "covid_qa" / "200421_covidQA.json")["data"]):
        name, paragraph = f"covid {number}", paper["paragraphs"][0]
        context = paragraph["context"]
        # A line is a paragraph; most lines between are blank, and are no pages.
        lines = [match.span() for match in re.finditer(r"[^\n]*\S[^\n]*", context)]
        cases = [
            Case(
                str(asked["id"]),
                asked["question"].strip(),
                tuple(answer["text"].strip() for answer in asked["answers"]),
                tuple(sorted({page for answer in asked["answers"] for page in _pages(context, lines, answer)})),
            )
            for asked in paragraph["qas"]
        ]
        document = partial(document_of, name, [context[start:end] for start, end in lines])
        yield Reading(name, tuple(cases), document, part=part_of("covid_qa", name))


def _pages(context: str, lines: list[tuple[int, int]], answer: dict[str, Any]) -> list[int]:
    text, told = answer["text"].strip(), answer["answer_start"]
    starts = [match.start() for match in re.finditer(re.escape(text), context)] if text else []
    if not starts:
        return []
    start = min(starts, key=lambda place: abs(place - told))
    return [page for page, (begin, end) in enumerate(lines, 1) if begin < start + len(text) and start < end]


SET = QuestionSet(
    name="covid_qa",
    about="questions of experts about 96 papers on coronaviruses",
    licence="Apache-2.0",
    files=("covid_qa/200421_covidQA.json",),
    splits=("all",),
    load=_load,
)
