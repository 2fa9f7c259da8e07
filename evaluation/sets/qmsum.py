"""QMSum: what was said of something in a meeting, answered by a summary. A turn is a page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lcdoc.evaluation.cases import Case, QuestionSet, Reading, document_of
from lcdoc.evaluation.sets.files import json_lines


def _load(folder: Path, split: str) -> Iterator[Reading]:
    for number, meeting in enumerate(json_lines(folder / "qmsum" / f"{split}.jsonl.gz"), 1):
        name = f"{split} meeting {number}"
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        asked = [*meeting["specific_query_list"], *meeting["general_query_list"]]
        cases = [
            Case(
                f"{number}/{place}",
                query["query"].strip(),
                (query["answer"],),
                tuple(
                    turn + 1
                    for first, last in query.get("relevant_text_span", ())
                    for turn in range(int(first), int(last) + 1)
                ),
                several=True,
            )
            for place, query in enumerate(asked, 1)
        ]
        yield Reading(name, tuple(cases), partial(document_of, name, turns))


SET = QuestionSet(
    name="qmsum",
    about="questions about meetings, answered by summaries",
    licence="MIT",
    files=("qmsum/test.jsonl.gz", "qmsum/val.jsonl.gz"),
    splits=("test", "val"),
    load=_load,
)
