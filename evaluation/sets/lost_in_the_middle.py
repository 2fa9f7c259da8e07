"""Lost in the Middle: a key's value among 75 pairs, and questions of Natural Questions with the passage that answers.

Those passages of twenty questions are one document, so that the right one has to be found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.parts import Part, part_of
from lcdoc.evaluation.sets.files import json_lines

_KEYS, _NATURAL = "kv", "nq"
_FILES = {_KEYS: "kv-retrieval-75_keys.jsonl.gz", _NATURAL: "nq-open-oracle.jsonl.gz"}
_JOINED = 20


def _load(folder: Path, split: str) -> Iterator[Reading]:
    rows = json_lines(folder / "lost_in_the_middle" / _FILES[split])
    return _key_values(rows) if split == _KEYS else _natural_questions(rows)


def _key_values(rows: Iterator[dict[str, Any]]) -> Iterator[Reading]:
    for number, row in enumerate(rows, 1):
        name, pairs = f"pairs {number}", row["ordered_kv_records"]
        place = next(place for place, (key, _) in enumerate(pairs, 1) if key == row["key"])
        case = Case(name, f"What is the value of the key {row['key']}?", (row["value"],), (place,))
        yield Reading(name, (case,), partial(document_of, name, [f"{key}: {value}" for key, value in pairs]))


def _natural_questions(rows: Iterator[dict[str, Any]]) -> Iterator[Reading]:
    waiting: dict[Part, list[dict[str, Any]]] = defaultdict(list)
    number = 0
    for row in rows:
        part = part_of("nq", row["ctxs"][0]["title"])
        waiting[part].append(row)
        if len(waiting[part]) == _JOINED:
            number += 1
            yield _joined(number, waiting.pop(part), part)
    for part, left in waiting.items():
        number += 1
        yield _joined(number, left, part)


def _joined(number: int, rows: list[dict[str, Any]], part: Part) -> Reading:
    name = f"passages {number}"
    pages = [f"{row['ctxs'][0]['title']}. {row['ctxs'][0]['text']}" for row in rows]
    cases = [
        Case(f"{number}/{page}", f"{row['question'].strip()}?", tuple(row["answers"]), (page,))
        for page, row in enumerate(rows, 1)
    ]
    return Reading(name, tuple(cases), partial(document_of, name, pages), part=part)


SET = QuestionSet(
    name="lost_in_the_middle",
    about="Natural Questions with their passages, twenty together, and look-ups of keys",
    licence="CC BY-SA 3.0 (questions), MIT (code)",
    files=tuple(f"lost_in_the_middle/{file}" for file in _FILES.values()),
    splits=(_NATURAL, _KEYS),
    load=_load,
)
