"""The leaderboard's arithmetic: accuracies with intervals, paired differences, Markdown tables and a plot as SVG.

Contexts are drawn again for the bootstrap, with all their questions: questions about one context are not independent.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

DRAWS = 1_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Setting:
    """What a method is measured at."""

    protocol: str
    when: str
    share: float
    """Of the cache's entries that it may keep"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One question under one method."""

    method: str
    """With its engine, as it stands in tables"""
    setting: Setting
    case: str
    question: int
    task: str
    right: bool
    held: float | None = None
    """Bytes of the cache over those of the full one, as measured; None where it failed"""
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the interval that bootstrap gives it."""

    mean: float
    low: float
    high: float
    count: int


def bootstrap(values: Sequence[tuple[str, float]], *, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """The mean of values, each with the context it is about, and its percentile interval. Raises ValueError for none.

    "An Introduction to the Bootstrap", chapter 13; clusters are drawn with replacement.
    """
    if not values:
        raise ValueError("there are no answers to take the mean of")
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for case, value in values:
        totals[case][0] += value
        totals[case][1] += 1
    clusters = list(totals.values())
    rng, means = random.Random(seed), []
    for _ in range(draws):
        drawn = rng.choices(clusters, k=len(clusters))
        means.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    means.sort()
    tail = (1 - CONFIDENCE) / 2
    low, high = (means[min(draws - 1, math.floor(part * draws))] for part in (tail, 1 - tail))
    return Estimate(sum(value for _, value in values) / len(values), low, high, len(values))


class Board:
    """All answers, by what they were given under."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers: dict[tuple[str, Setting], list[Answer]] = defaultdict(list)
        for answer in answers:
            self._answers[answer.method, answer.setting].append(answer)

    def methods(self, protocol: str, when: str) -> list[str]:
        """Those that keep less than everything, the best first: by their mean over all shares, 0 where not measured."""
        shares = self.shares(protocol, when)
        found = {
            method for method, one in self._answers if (one.protocol, one.when) == (protocol, when) and one.share < 1
        }

        def quality(method: str) -> float:
            means = [self.accuracy(method, Setting(protocol, when, share)) for share in shares]
            return sum(one.mean for one in means if one) / len(shares)

        return sorted(found, key=lambda method: (-quality(method), method))

    def shares(self, protocol: str, when: str) -> list[float]:
        """Those measured, the largest first; not that of the full cache."""
        found = {one.share for _, one in self._answers if (one.protocol, one.when) == (protocol, when)}
        return sorted(found - {1.0}, reverse=True)

    def settings(self) -> list[tuple[str, str]]:
        """Protocols and times that anything but the full cache was measured at."""
        return sorted({(one.protocol, one.when) for _, one in self._answers if one.share < 1})

    def accuracy(self, method: str, setting: Setting, task: str | None = None) -> Estimate | None:
        """The share of right answers; failures are wrong ones. None where nothing was measured."""
        values = [
            (one.case, float(one.right))
            for one in self._answers.get((method, setting), ())
            if task is None or one.task == task
        ]
        return bootstrap(values) if values else None

    def difference(self, method: str, setting: Setting, other: str, at: Setting) -> Estimate | None:
        """How much more often `method` is right than `other`, over the questions that both were asked."""
        known = {(one.case, one.question): one.right for one in self._answers.get((other, at), ())}
        pairs = [
            (one.case, float(one.right) - float(known[one.case, one.question]))
            for one in self._answers.get((method, setting), ())
            if (one.case, one.question) in known
        ]
        return bootstrap(pairs) if pairs else None

    def held(self, method: str, setting: Setting) -> float | None:
        """The mean share of the full cache's bytes that was measured."""
        found = [one.held for one in self._answers.get((method, setting), ()) if one.held is not None]
        return sum(found) / len(found) if found else None

    def failures(self, method: str, setting: Setting) -> dict[str, int]:
        """What it failed with, and for how many questions."""
        counts: dict[str, int] = defaultdict(int)
        for one in self._answers.get((method, setting), ()):
            if one.failure is not None:
                counts[one.failure] += 1
        return dict(counts)

    def tasks(self) -> list[str]:
        return sorted({one.task for each in self._answers.values() for one in each})


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown(board: Board, *, full: str, rival: Callable[[str], bool]) -> str:
    """All tables. `full` is the method that keeps everything; `rival` tells the published methods as their authors or
    kvpress have them from combinations of our own."""
    parts = [
        "Shares of right answers in percent. ± is half of the 95 % interval of a bootstrap over contexts; (n) is the "
        "share of the full cache's bytes that was held, in percent, as measured. A failure counts as a wrong answer.\n"
    ]
    for protocol, when in board.settings():
        parts.append(_main_table(board, protocol, when, full))
        parts.append(_paired(board, protocol, when, full, rival))
        parts.append(_by_task(board, protocol, when))
        parts.append(_failures(board, protocol, when))
    return "\n".join(part for part in parts if part)


def _main_table(board: Board, protocol: str, when: str, full: str) -> str:
    shares = board.shares(protocol, when)
    lines = [f"### Question-{protocol}, compressed {_time(when)}\n"]
    lines += _head(["method", *(f"{share:.0%}" if share >= 0.1 else f"{100 * share:g}%" for share in shares), "mean"])
    whole = board.accuracy(full, Setting(protocol, "end", 1.0))
    if whole:
        lines.append(_row([f"*{full}*", *[f"*{_percent(whole)}*"] * (len(shares) + 1)]))
    for method in board.methods(protocol, when):
        cells, means = [], []
        for share in shares:
            setting = Setting(protocol, when, share)
            estimate, held = board.accuracy(method, setting), board.held(method, setting)
            means.append(estimate.mean if estimate else 0.0)
            bytes_held = f" ({100 * held:.0f})" if held is not None else ""
            cells.append(f"{_percent(estimate)}{bytes_held}" if estimate else "")
        lines.append(_row([f"`{method}`", *cells, f"{100 * sum(means) / len(means):.1f}"]))
    return "\n".join(lines) + "\n"


def _paired(board: Board, protocol: str, when: str, full: str, rival: Callable[[str], bool]) -> str:
    """Each method against the full cache and against the best rival, on the same questions."""
    methods = board.methods(protocol, when)
    best = next((one for one in methods if rival(one)), None)
    lines = [f"#### Paired differences in points, question-{protocol}, {_time(when)}\n"]
    lines += _head(["method", "kept", "against the full cache", f"against {f'`{best}`' if best else 'none'}"])
    for method in methods:
        for share in board.shares(protocol, when):
            setting = Setting(protocol, when, share)
            to_full = board.difference(method, setting, full, Setting(protocol, "end", 1.0))
            to_best = board.difference(method, setting, best, setting) if best and best != method else None
            if to_full or to_best:
                lines.append(_row([f"`{method}`", f"{100 * share:g}%", _points(to_full), _points(to_best)]))
    return "\n".join(lines) + "\n"


def _by_task(board: Board, protocol: str, when: str) -> str:
    shares, tasks = board.shares(protocol, when), board.tasks()
    if not shares:
        return ""
    share = shares[len(shares) // 2]
    lines = [f"#### By task at {100 * share:g}%, question-{protocol}, {_time(when)}\n", *_head(["method", *tasks])]
    for method in board.methods(protocol, when):
        found = [board.accuracy(method, Setting(protocol, when, share), task) for task in tasks]
        lines.append(_row([f"`{method}`", *(_percent(one) if one else "" for one in found)]))
    return "\n".join(lines) + "\n"


def _failures(board: Board, protocol: str, when: str) -> str:
    lines = []
    for method in board.methods(protocol, when):
        for share in board.shares(protocol, when):
            for message, count in board.failures(method, Setting(protocol, when, share)).items():
                lines.append(f"- `{method}` at {100 * share:g}%: {count} questions failed: {message}")
    return "\n".join(["#### Failures\n", *lines]) + "\n" if lines else ""


def _time(when: str) -> str:
    return {"end": "at the end", "during": "while it is read"}.get(when, when)


def _percent(one: Estimate) -> str:
    return f"{100 * one.mean:.1f} ±{50 * (one.high - one.low):.1f}"


def _points(one: Estimate | None) -> str:
    return f"{100 * one.mean:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]" if one else ""


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---", *["---:"] * (len(names) - 1)])]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- the plot --------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 860, 460, 60, 40, 500, 360
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666")
"""Colours that are told apart in every kind of sight."""


def plot(board: Board, protocol: str, when: str, *, full: str, most: int = 16) -> str:
    """Accuracy over the share kept, on a logarithmic axis, for the best methods, with their intervals: an SVG image."""
    shares = board.shares(protocol, when)
    widest, narrowest = math.log(shares[0]), math.log(shares[-1])
    span = (widest - narrowest) or 1.0

    def place(share: float, value: float) -> tuple[float, float]:
        across = (math.log(share) - narrowest) / span if len(shares) > 1 else 0.5
        return _LEFT + 15 + across * (_PLOT_WIDTH - 30), _TOP + (1 - value) * _PLOT_HEIGHT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">Right answers by share kept: question-{escape(protocol)}, '
        f"{escape(_time(when))}</text>",
    ]
    for tenth in range(0, 11, 2):
        _, y = place(shares[0], tenth / 10)
        parts.append(_line((_LEFT, y), (_LEFT + _PLOT_WIDTH, y), "#dddddd"))
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth * 10}%</text>')
    for share in shares:
        x, y = place(share, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{100 * share:g}%</text>')
    whole = board.accuracy(full, Setting(protocol, "end", 1.0))
    if whole:
        _, y = place(shares[0], whole.mean)
        parts.append(_line((_LEFT, y), (_LEFT + _PLOT_WIDTH, y), "#000000", "6 3"))
        parts.append(f'<text x="{_LEFT + 4}" y="{y - 4:.1f}">{escape(full)}</text>')
    for index, method in enumerate(board.methods(protocol, when)[:most]):
        colour, dashes = _COLOURS[index % len(_COLOURS)], "" if index < len(_COLOURS) else "4 3"
        points = []
        for share in shares:
            estimate = board.accuracy(method, Setting(protocol, when, share))
            if estimate:
                x, y = place(share, estimate.mean)
                points.append(f"{x:.1f},{y:.1f}")
                parts.append(_line(place(share, estimate.low), place(share, estimate.high), colour))
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        style = f'fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dashes}"'
        parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
        y = _TOP + 10 + 18 * index
        beside = _LEFT + _PLOT_WIDTH + 20
        parts.append(_line((beside, y), (beside + 24, y), colour, dashes))
        parts.append(f'<text x="{beside + 30}" y="{y + 4}">{escape(method)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, dashes: str = "") -> str:
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}" '
        f'stroke-dasharray="{dashes}"/>'
    )
