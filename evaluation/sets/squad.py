"""SQuAD, v1.1 and v2.0: paragraph by paragraph as published, or the paragraphs of an article as one document.

In an article a question without an answer was written to have none in its own paragraph; another may answer it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.parts import part_of
from lcdoc.evaluation.sets.files import json_of


def _load(folder: Path, split: str) -> Iterator[Reading]:
    version, _, level = split.partition("-")
    for article in json_of(folder / "squad" / f"dev-{version}.json")["data"]:
        title, paragraphs = article["title"], article["paragraphs"]
        part = part_of("squad", title)
        if level == "article":
            cases = [case for page, paragraph in enumerate(paragraphs, 1) for case in _cases(paragraph, (page,))]
            document = partial(document_of, title, [paragraph["context"] for paragraph in paragraphs])
            yield Reading(title, tuple(cases), document, part=part)
            continue
        for number, paragraph in enumerate(paragraphs, 1):
            name = f"{title}, paragraph {number}"
            document = partial(document_of, name, [paragraph["context"]])
            # The paragraph is all there is, so that its place is no evidence to be found.
            yield Reading(name, tuple(_cases(paragraph, ())), document, cluster=title, part=part)


def _cases(paragraph: dict[str, Any], pages: tuple[int, ...]) -> Iterator[Case]:
    for asked in paragraph["qas"]:
        references = tuple(dict.fromkeys(answer["text"] for answer in asked["answers"]))
        yield Case(asked["id"], asked["question"].strip(), references, pages if references else ())


SET = QuestionSet(
    name="squad",
    about="questions about paragraphs of Wikipedia, half of v2.0's without an answer",
    licence="CC BY-SA 4.0",
    files=("squad/dev-v1.1.json", "squad/dev-v2.0.json"),
    splits=("v2.0-article", "v2.0", "v1.1-article", "v1.1"),
    load=_load,
)
