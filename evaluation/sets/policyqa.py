"""PolicyQA: questions about the privacy policies of web sites, whose paragraphs make one document each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_of


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    for policy in json_of(folder / "policyqa" / "dev.json.gz")["data"]:
        cases = [
            Case(
                asked["id"], asked["question"].strip(), tuple(answer["text"] for answer in asked["answers"]), (number,)
            )
            for number, paragraph in enumerate(policy["paragraphs"], 1)
            for asked in paragraph["qas"]
        ]
        pages = [paragraph["context"] for paragraph in policy["paragraphs"]]
        yield Reading(policy["title"], tuple(cases), partial(document_of, policy["title"], pages))


SET = QuestionSet(
    name="policyqa",
    about="questions about privacy policies, answered by spans of them",
    licence="MIT; the policies are for research",
    files=("policyqa/dev.json.gz",),
    splits=("dev",),
    load=_load,
)
