"""Which sets there are, and which of them lie on this machine."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.sets import DATA_VARIABLE, SETS, data_folder, missing_files, readings, set_named


@dataclass(frozen=True, slots=True)
class Listed:
    """A set, and what of it is here."""

    name: str
    about: str
    licence: str
    questions: dict[str, int | None]
    """By split, the one taken by default first; None where that is not known."""
    missing: str
    """What is not there; empty where all is."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """The set in one line."""
        if self.missing:
            return f"{self.name}: {self.about}; not here: {self.missing} ({self.licence})"
        counts = ", ".join(f"{split} {count:,}" for split, count in self.questions.items() if count is not None)
        return f"{self.name}: {self.about}; questions: {counts} ({self.licence})"


def listed(data: str | os.PathLike[str] | None = None) -> list[Listed]:
    """All sets. Raises EvaluationError for a data folder that is none."""
    folder = data_folder(data) if data or os.environ.get(DATA_VARIABLE) else None
    return [_listed(name, folder) for name in SETS]


def _listed(name: str, folder: Path | None) -> Listed:
    found = set_named(name)
    counts: dict[str, int | None] = dict.fromkeys(found.splits)
    if folder is None:
        return Listed(name, found.about, found.licence, counts, f"name the data folder, or set {DATA_VARIABLE}")
    if missing := missing_files(found, folder):
        return Listed(name, found.about, found.licence, counts, f"{folder / missing[0]}")
    try:
        for split in found.splits:
            counts[split] = sum(len(reading.cases) for reading in readings(found, folder, split))
    except EvaluationError as error:
        return Listed(name, found.about, found.licence, counts, str(error))
    return Listed(name, found.about, found.licence, counts, "")
