"""What an evaluation comes to: means with their intervals, and the differences of two, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lcdoc.evaluation.desk import BASELINES
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.layout import fits, laid_out
from lcdoc.evaluation.scoring import METRICS, RISK, Metric
from lcdoc.evaluation.statistics import Difference, Estimate, mean_of, paired_difference, risk_coverage_of
from lcdoc.memory import Library
from lcdoc.memory.evaluations import Evaluation
from lcdoc.workflows.run import OFFLINE

Items = Mapping[str, Mapping[str, Any]]
FEW_DOCUMENTS = 8
"""With fewer, intervals that draw documents are too narrow."""
_RISK = "risk"
_SHOWN: dict[str, Metric] = {}
for _name, _metric in METRICS.items():
    _SHOWN[_name] = _metric
    if _name == "refused":
        _SHOWN[_RISK] = RISK
_OF_OVERVIEW = ("f1", "contains", "answered", "refused", _RISK, "gold_cited", "citations_right", "recall_5", "seconds")


@dataclass(frozen=True, slots=True)
class Result:
    """An evaluation with its items and what they come to."""

    evaluation: Evaluation
    items: Items
    estimates: Mapping[str, Estimate]
    """By the keys of METRICS, and `risk`."""

    @property
    def failed(self) -> int:
        return sum(bool(item["error"]) for item in self.items.values())

    @property
    def documents(self) -> int:
        """How many were drawn from for the intervals."""
        return len({item["drawn_as"] for item in self.items.values()})

    @property
    def title(self) -> str:
        """Who was asked."""
        settings = self.evaluation.settings
        way = settings["way"]
        if way in BASELINES:
            return BASELINES[way] if settings["model"] == OFFLINE else f"{BASELINES[way]}, {settings['model']}"
        return f"{way}, {settings['model']}"

    @property
    def subject(self) -> str:
        """What was asked."""
        settings = self.evaluation.settings
        part = "" if settings["part"] == "all" else f", {settings['part']} part"
        return f"{settings['set']} {settings['split']}".strip() + part


def result_of(library: Library, evaluation: Evaluation) -> Result:
    """What the evaluation came to so far. Raises EvaluationError where no question was answered yet."""
    items = library.evaluations.items(evaluation.id)
    if not items:
        raise EvaluationError(f"evaluation {evaluation.id} has no answers yet", "give its command again to go on")
    estimates: dict[str, Estimate] = {}
    for name in METRICS:
        rows = [item for item in items.values() if name in item["figures"]]
        if rows:
            estimates[name] = mean_of([row["figures"][name] for row in rows], [row["drawn_as"] for row in rows])
    sure, scores = confidences(items)
    if len({one for one in sure if one >= 0}) > 1:
        estimates[_RISK] = risk_coverage_of(sure, scores, [item["drawn_as"] for item in items.values()])
    return Result(evaluation, items, estimates)


def confidences(items: Items) -> tuple[list[float], list[float]]:
    """How sure each answer was, refusals the least, and its F1."""
    rows = items.values()
    return [row["confidence"] if row["found"] else -1.0 for row in rows], [row["figures"]["f1"] for row in rows]


def table(results: Sequence[Result], *, markdown: bool = False, width: int | None = None) -> str:
    """A row for each figure, a column for each result; shares in percent, with 95 % intervals.

    Where `width` characters are too few, intervals are given in whole percent.
    """
    rows = _rows_of_table(results)
    if not markdown and not fits(rows, width):
        rows = _rows_of_table(results, brief=True)
    return laid_out(rows, markdown=markdown, width=width)


def _rows_of_table(results: Sequence[Result], *, brief: bool = False) -> list[list[str]]:
    rows = [["", *(result.title for result in results)]]
    unanswerable = any("refused" in result.estimates for result in results)
    for name, metric in _SHOWN.items():
        if name == "f1_answerable" and not unanswerable:
            continue
        shown = [cell(metric, result.estimates.get(name), brief=brief) for result in results]
        spent = any(result.estimates[name].value for result in results if name in result.estimates)
        if any(shown) and (spent or metric.unit == "share"):
            rows.append([metric.title, *shown])
    rows.append(["questions (failed)", *(f"{len(result.items)} ({result.failed})" for result in results)])
    rows.append(["documents", *(str(result.documents) for result in results)])
    rows.append(["evaluation", *(result.evaluation.id for result in results)])
    return rows


def overview(results: Sequence[Result], *, markdown: bool = False) -> str:
    """A row for each result, for results of several sets; shares in percent, with 95 % intervals."""
    names = [name for name in _OF_OVERVIEW if any(name in result.estimates for result in results)]
    rows = [["questions", "asked", *(_SHOWN[name].title for name in names)]]
    for result in results:
        asked = f"{result.subject} ({len(result.items)})"
        rows.append([asked, result.title, *(cell(_SHOWN[name], result.estimates.get(name)) for name in names)])
    return laid_out(rows, markdown=markdown)


def compared(first: Result, second: Result) -> dict[str, Difference]:
    """For each figure, how much more the second has, on the questions where both have it.

    Raises EvaluationError where they have no question in common.
    """
    shared = _shared(first.items, second.items)
    if not shared:
        problem = f"evaluations {first.evaluation.id} and {second.evaluation.id} have no question in common"
        raise EvaluationError(problem, "compare two of the same set, with the same --limit and --seed")
    differences: dict[str, Difference] = {}
    for name in METRICS:
        both = [pair for pair in shared if all(name in item["figures"] for item in pair)]
        if both:
            before, after = ([item["figures"][name] for item in side] for side in zip(*both, strict=True))
            differences[name] = paired_difference(before, after, [item["drawn_as"] for item, _ in both])
    return differences


def _shared(first: Items, second: Items) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The questions of both: those of one id, or, where ids are the numbers of lines that moved, of one document."""
    asked: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in second.values():
        asked.setdefault((item["document"], item["question"]), []).append(item)
    pairs = []
    for name, item in first.items():
        same = second.get(name)
        if same is not None and same["question"] == item["question"]:
            pairs.append((item, same))
        elif len(found := asked.get((item["document"], item["question"]), [])) == 1:
            pairs.append((item, found[0]))
    return pairs


def comparison_table(first: Result, second: Result, *, markdown: bool = False, width: int | None = None) -> str:
    """Both means, their paired difference with its 95 % interval, and its p. Raises what `compared` raises.

    Where `width` characters are too few, intervals are given of shares alone, and in whole percent.
    """
    differences = compared(first, second)
    rows = _rows_of_comparison(first, second, differences)
    if not markdown and not fits(rows, width):
        rows = _rows_of_comparison(first, second, differences, brief=True)
    return laid_out(rows, markdown=markdown, width=width)


def _rows_of_comparison(
    first: Result, second: Result, differences: Mapping[str, Difference], *, brief: bool = False
) -> list[list[str]]:
    rows = [["", first.title, second.title, "difference", "p", "questions"]]
    for name, difference in differences.items():
        metric = METRICS[name]
        if name == "f1_answerable" and "refused" not in first.estimates:
            continue
        if metric.unit != "share" and not any(result.estimates[name].value for result in (first, second)):
            continue
        plain = partial(_plain, metric)
        means = [plain(result.estimates[name].value) for result in (first, second)]
        p = f"{difference.p:.3f}" if difference.p >= 0.001 else "< 0.001"
        shown = cell(metric, difference.estimate, signed=True, brief=brief)
        rows.append([metric.title, *means, shown, p, str(difference.estimate.questions)])
    return rows


def worst(result: Result, count: int) -> list[Mapping[str, Any]]:
    """The `count` items with the least F1, those that failed first."""
    order = sorted(result.items.values(), key=lambda item: (not item["error"], item["figures"]["f1"]))
    return order[:count]


def cell(metric: Metric, estimate: Estimate | None, *, signed: bool = False, brief: bool = False) -> str:
    """A figure as tables have it: a share with its interval, a difference of any figure too; empty where there is none.

    `brief`: a share's interval in whole percent, and no other.
    """
    if estimate is None:
        return ""
    sign, share = "+" if signed else "", metric.unit == "share"
    value, low, high = (_plain(metric, one, sign) for one in (estimate.value, estimate.low, estimate.high))
    if brief and share:
        low, high = (f"{100 * bound:{sign}.0f}" for bound in (estimate.low, estimate.high))
    elif brief or not (share or signed):
        return value
    return f"{value} [{low}, {high}]"


def _plain(metric: Metric, value: float, sign: str = "") -> str:
    match metric.unit:
        case "share":
            return f"{100 * value:{sign}.1f}"
        case "usd":
            return f"{value:{sign}.5f}"
        case "seconds":
            return f"{value:{sign}.2f}"
    return f"{value:{sign},.1f}"
