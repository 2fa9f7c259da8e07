"""Essays in which facts are planted: see `lcdoc.evaluation.needles`. `lcdoc eval needle` has the options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lcdoc.documents import load
from lcdoc.evaluation.cases import QuestionSet, Reading
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.needles import needles
from lcdoc.evaluation.sets import data_folder, missing_files
from lcdoc.evaluation.sets.files import json_of


def essays(folder: Path) -> str:
    """The text of all essays."""
    text: str = json_of(folder / "needle_haystacks" / "PaulGrahamEssays_all.json")["text"]
    return text


def _load(folder: Path, _split: str) -> Iterator[Reading]:
    return needles(essays(folder))


SET = QuestionSet(
    name="needle_haystacks",
    about="facts planted in essays, at several depths of several lengths",
    licence="MIT; the essays are their author's",
    files=("needle_haystacks/PaulGrahamEssays_all.json",),
    splits=("essays",),
    load=_load,
)


def haystack(path: Path | None, data: Path | None) -> str:
    """The text to plant facts in: of the file, else the essays in the data folder. Raises DocumentError,
    EvaluationError."""
    if path is not None:
        return load(path).text
    folder = data_folder(data)
    if missing := missing_files(SET, folder):
        raise EvaluationError(f"{folder / missing[0]} is not there", "name a text of your own with --text FILE")
    return essays(folder)
