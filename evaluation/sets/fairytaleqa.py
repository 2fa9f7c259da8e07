"""FairytaleQA: questions of teachers about fairy tales, answered in their own words. A section of a story is a page."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.parts import part_of

_ANSWERS = tuple(f"answer{number}" for number in range(1, 7))


def _load(folder: Path, split: str) -> Iterator[Reading]:
    for path in sorted((folder / "fairytaleqa" / "section-stories" / split).glob("*-story.csv")):
        name = path.name.removesuffix("-story.csv")
        asked = folder / "fairytaleqa" / "questions" / split / f"{name}-questions.csv"
        if not asked.exists():
            continue
        sections = _rows(path)
        numbers = {row["section"].strip(): page for page, row in enumerate(sections, 1)}
        cases = [
            Case(
                f"{name}/{row['question_id']}",
                row["question"].strip(),
                tuple(dict.fromkeys(text for key in _ANSWERS if (text := (row.get(key) or "").strip()))),
                tuple(numbers[one] for one in re.findall(r"\d+", row["cor_section"] or "") if one in numbers),
            )
            for row in _rows(asked)
            if (row["question"] or "").strip()
        ]
        document = partial(document_of, name, [row["text"] for row in sections])
        yield Reading(name, tuple(cases), document, part=part_of("fairytaleqa", name))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        return list(csv.DictReader(lines))


SET = QuestionSet(
    name="fairytaleqa",
    about="questions of teachers about fairy tales, in their own words",
    licence="Apache-2.0",
    files=("fairytaleqa/section-stories/*/*-story.csv", "fairytaleqa/questions/*/*-questions.csv"),
    splits=("test", "val"),
    load=_load,
)
