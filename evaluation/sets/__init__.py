"""The sets of questions there are. One more is one file here and one line below.

Nothing is fetched: the files lie in a data folder, a folder for each set, as their authors publish them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from lcdoc.evaluation.cases import QuestionSet, Reading
from lcdoc.evaluation.errors import EvaluationError

SETS: Mapping[str, str] = MappingProxyType(
    {
        name: f"lcdoc.evaluation.sets.{name}"
        for name in (
            "babi",
            "covid_qa",
            "fairytaleqa",
            "financebench",
            "leval",
            "literaryqa",
            "loogle",
            "lost_in_the_middle",
            "multihop",
            "needle_haystacks",
            "ohr_bench",
            "policyqa",
            "qmsum",
            "squad",
            "tatqa",
        )
    }
)
"""Modules by name; each has its set as `SET`."""
DATA_VARIABLE = "LCDOC_EVAL_DATA"


def set_named(name: str) -> QuestionSet:
    """The set of this name. Raises EvaluationError."""
    module = SETS.get(name.strip().lower().replace("-", "_"))
    if module is None:
        problem = f"there is no set {name!r}, and no file of that name"
        raise EvaluationError(problem, f"take a .jsonl or .csv file of your own, or one of {', '.join(SETS)}")
    found: QuestionSet = import_module(module).SET
    return found


def data_folder(path: str | os.PathLike[str] | None = None) -> Path:
    """The folder with the sets: `path`, else the variable LCDOC_EVAL_DATA. Raises EvaluationError."""
    chosen = path or os.environ.get(DATA_VARIABLE)
    if not chosen:
        raise EvaluationError("the folder with the sets is not known", f"name it with --data, or with {DATA_VARIABLE}")
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise EvaluationError(f"{folder} is not a folder", "name the folder that holds the sets")
    return folder


def missing_files(questions: QuestionSet, folder: Path) -> list[str]:
    """Which of the files of the set are not in the data folder."""
    return [pattern for pattern in questions.files if next(folder.glob(pattern), None) is None]


def readings(questions: QuestionSet, folder: Path, split: str | None = None) -> list[Reading]:
    """The documents and questions of a split (default: the first). Raises EvaluationError."""
    if split is not None and split not in questions.splits:
        problem = f"{questions.name} has no split {split!r}"
        raise EvaluationError(problem, f"it has {', '.join(questions.splits)}")
    if missing := missing_files(questions, folder):
        raise EvaluationError(
            f"{folder / missing[0]} is not there: {questions.name} is {questions.about}",
            f"put its files so that {folder} has {', '.join(questions.files)}",
        )
    chosen = split or questions.splits[0]
    try:
        found = [reading for reading in questions.load(folder, chosen) if reading.cases]
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
        problem = f"{folder / questions.name}: its files are not as {questions.name} has them"
        raise EvaluationError(f"{problem} ({type(error).__name__}: {error})", "take them as published") from error
    if not found:
        raise EvaluationError(f"{folder / questions.name} has no questions of {chosen}", "take another --split")
    return found
