"""MuSiQue, HotpotQA and 2WikiMultihopQA: answers that take two to four paragraphs. The paragraphs given with a question
are its document, a page each; those that support the answer are the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.parts import part_of
from lcdoc.evaluation.sets.files import json_lines


def _load(folder: Path, split: str) -> Iterator[Reading]:
    for row in json_lines(folder / "multihop" / f"{split}.jsonl.gz"):
        paragraphs = _paragraphs(row)
        if not paragraphs:
            continue  # a fifth of 2WikiMultihopQA has none
        identity = row.get("id") or row["_id"]
        pages = tuple(number for number, (_, supports) in enumerate(paragraphs, 1) if supports)
        references = tuple(dict.fromkeys([row["answer"], *row.get("answer_aliases", ())]))
        document = partial(document_of, identity, [text for text, _ in paragraphs])
        case = Case(identity, row["question"].strip(), references, pages)
        yield Reading(identity, (case,), document, part=part_of(split, identity))


def _paragraphs(row: dict[str, Any]) -> list[tuple[str, bool]]:
    """The texts under their titles, and whether each supports the answer."""
    if "paragraphs" in row:
        return [(f"{one['title']}. {one['paragraph_text']}", one["is_supporting"]) for one in row["paragraphs"]]
    support = {title for title, _ in row["supporting_facts"]}
    return [
        (f"{title}. {' '.join(' '.join(sentences).split())}", title in support)
        for title, sentences in row.get("context", ())
    ]


SET = QuestionSet(
    name="multihop",
    about="questions of several hops over ten or twenty paragraphs",
    licence="CC BY 4.0 (musique), CC BY-SA 4.0 (hotpot), Apache-2.0 (2wikimultihop)",
    files=tuple(f"multihop/{name}.jsonl.gz" for name in ("musique", "hotpot", "2wikimultihop")),
    splits=("musique", "hotpot", "2wikimultihop"),
    load=_load,
)
