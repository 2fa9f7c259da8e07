"""bAbI: twenty tasks of inference over simple sentences, a page each. A question is about what stands before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of

_FIELDS = re.compile(r"\t|\|")
"""Tabs as published; copies of the first task have bars."""
_TASKS = tuple(f"qa{number}" for number in range(1, 21))


def _load(folder: Path, split: str) -> Iterator[Reading]:
    (path,) = sorted((folder / "babi" / "en").glob(f"{split}_*_test.txt"))
    story: dict[str, str] = {}
    number = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        place, _, text = line.partition(" ")
        if place == "1":
            story, number = {}, number + 1
        parts = _FIELDS.split(text)
        if len(parts) == 1:
            story[place] = text
            continue
        question, answer, support = parts
        name = f"{split} story {number}, line {place}"
        pages = tuple(page for page, told in enumerate(story, 1) if told in support.split())
        several = "," in answer
        case = Case(name, question.strip(), (answer.replace(",", ", "),), pages, several=several)
        document = partial(document_of, name, list(story.values()))
        yield Reading(name, (case,), document, cluster=f"story {number}")


SET = QuestionSet(
    name="babi",
    about="inference over simple sentences, in twenty tasks",
    licence="CC BY 3.0",
    files=("babi/en/*_test.txt",),
    splits=_TASKS,
    load=_load,
)
