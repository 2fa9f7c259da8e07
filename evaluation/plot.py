"""Pictures of evaluations: means with their intervals and risk against coverage, or, for needles, a map of places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.needle_map import shares
from lcdoc.evaluation.report import Result, confidences
from lcdoc.evaluation.scoring import METRICS
from lcdoc.evaluation.statistics import risk_by_coverage

_BARS = ("exact", "f1", "rouge_l", "contains", "answered", "refused", "gold_cited", "citations_right", "recall_5")


def check_format(path: Path) -> None:
    """Raises EvaluationError where the suffix of `path` names no format of pictures, or without matplotlib."""
    known = _figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise EvaluationError(f"{path} names no format of pictures", "name a file such as scores.svg")


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the results into `path`; its suffix names the format. Raises EvaluationError without matplotlib."""
    maps = [shares(result) for result in results]
    if all(maps):
        figure = _figure(5 * len(results), 4)
        for axes, result, found in zip(figure.subplots(1, len(results), squeeze=False)[0], results, maps, strict=True):
            _draw_map(figure, axes, result, found)
    else:
        figure = _figure(11, 5)
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_bars(left, results)
        _draw_risk(right, results)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be written ({error})", "name a file such as scores.svg") from error


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EvaluationError("pictures take matplotlib", "pip install 'lcdoc[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _draw_map(figure: Any, axes: Any, result: Result, found: dict[tuple[int, int], float]) -> None:
    lengths, depths = (sorted({place[axis] for place in found}) for axis in (0, 1))
    values = np.array([[found.get((length, depth), np.nan) for length in lengths] for depth in depths])
    image = axes.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(depths)), [f"{depth} %" for depth in depths])
    axes.set(xlabel="tokens", ylabel="depth", title=result.title)
    figure.colorbar(image, ax=axes, label="facts found")


def _draw_bars(axes: Any, results: Sequence[Result]) -> None:
    names = [name for name in _BARS if any(name in result.estimates for result in results)]
    height = 0.8 / len(results)
    for number, result in enumerate(results):
        shown = [(row, result.estimates[name]) for row, name in enumerate(names) if name in result.estimates]
        at = [row + number * height for row, _ in shown]
        means = [100 * one.value for _, one in shown]
        # A bootstrap interval need not hold the mean of few questions.
        sides = [
            [max(0.0, 100 * (one.value - one.low)) for _, one in shown],
            [max(0.0, 100 * (one.high - one.value)) for _, one in shown],
        ]
        axes.barh(at, means, height, xerr=sides, label=result.title, error_kw={"elinewidth": 1})
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(names))], [METRICS[name].title for name in names])
    axes.invert_yaxis()
    axes.set(xlabel="percent, 95 % interval", title=results[0].subject)
    axes.legend(fontsize="small")


def _draw_risk(axes: Any, results: Sequence[Result]) -> None:
    for result in results:
        risks = risk_by_coverage(*confidences(result.items))
        axes.plot(np.arange(1, len(risks) + 1) / len(risks), risks, label=result.title)
    axes.set(xlabel="coverage, surest answers first", ylabel="risk (1 - F1)", ylim=(0, 1))
