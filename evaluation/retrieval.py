"""How well the gold evidence is found, by each way to rank passages: recall@k and MRR with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lcdoc.documents import DocumentError
from lcdoc.evaluation.cases import Reading
from lcdoc.evaluation.desk import Desk
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.layout import fits, laid_out
from lcdoc.evaluation.rankings import METHODS
from lcdoc.evaluation.report import cell
from lcdoc.evaluation.scoring import Metric, ranking_figures
from lcdoc.evaluation.statistics import Estimate, mean_of

KS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Found:
    """What one method found."""

    method: str
    estimates: dict[str, Estimate]
    """`recall_1`, ..., `mrr`."""


def sweep(
    desk: Desk, readings: Sequence[Reading], *, on_progress: Callable[[int, int, str], None]
) -> tuple[list[Found], list[str]]:
    """Every method on every question whose evidence is known, and a line for each document that could not be read.

    `on_progress` is given questions done, questions in all and the document's name. Raises EvaluationError where no
    evidence is known.
    """
    total, done = sum(len(reading.cases) for reading in readings), 0
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    owners: list[str] = []
    problems: list[str] = []
    for reading in readings:
        on_progress(done, total, reading.name)
        done += len(reading.cases)
        try:
            document = reading.document()
            desk.add(document)
        except DocumentError as error:
            problems.append(str(error))
            continue
        for case in reading.cases:
            evidence = case.evidence(document)
            if not evidence:
                continue
            owners.append(reading.drawn_as)
            for method in METHODS:
                ranked = desk.rankings.ranked(method, case.question, document, max(KS))
                rows[method].append(ranking_figures(evidence, [span for span, _ in ranked], ks=KS))
    on_progress(total, total, "")
    if not owners:
        raise EvaluationError("none of these questions has known evidence", "take a set that names pages or quotes")
    names = [*(f"recall_{k}" for k in KS), "mrr"]
    return [
        Found(method, {name: mean_of([row[name] for row in figures], owners) for name in names})
        for method, figures in rows.items()
    ], problems


def sweep_table(found: Sequence[Found], *, markdown: bool = False, width: int | None = None) -> str:
    """A row for each method; percent, with 95 % intervals, in whole percent where `width` characters are too few."""
    names = list(found[0].estimates)
    header = ["", *(name.replace("recall_", "recall@").replace("mrr", "MRR") for name in names)]
    share = Metric("", "")

    def rows(brief: bool) -> list[list[str]]:
        cells = ([cell(share, one.estimates[name], brief=brief) for name in names] for one in found)
        return [header, *([METHODS[one.method], *row] for one, row in zip(found, cells, strict=True))]

    return laid_out(rows(not markdown and not fits(rows(False), width)), markdown=markdown, width=width)
