"""What a job will take, told before anything is paid: some of its documents are read, the rest is reckoned from them.

Where all documents are read, the figures are those of the workflows' own plans (`sampling.py` tells about the others).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcdoc.documents import Document, DocumentError
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Job, Task
from lcdoc.jobs.sampling import Amount, Sample
from lcdoc.workflows.errors import WorkflowError
from lcdoc.workflows.events import Progress
from lcdoc.workflows.run import OFFLINE
from lcdoc.workflows.workflow import Plan
from lcdoc.workflows.workspace import Workspace

SAMPLE = 20
_TASKS_EACH = 8
"""Planned for one document of the sample, in turns."""
_ANSWERED = 3
"""Documents of which, offline, some answers are really made, to time them."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What a job will take."""

    documents: int
    bytes: int
    tasks: int
    """For each document."""
    sampled: int
    """Documents that were read for this."""
    unreadable: tuple[str, ...]
    """Why some of them cannot be read."""
    impossible: tuple[str, ...]
    """Why some tasks cannot be done with some of them."""
    model: str
    pages: Amount
    calls: Amount
    tokens_in: Amount
    tokens_out: Amount
    usd: Amount | None
    """None: the price is not known."""
    at_most_usd: float | None
    reading_s: Amount | None
    """Of one process; None: those of the sample were in the library, so that nothing was timed."""
    answering_s: Amount | None
    """One after the other; None: this model has not been timed yet."""

    def seconds(self, workers: int, at_once: int) -> float | None:
        """Wall time, likely, of so many processes and requests at once; None where answering has not been timed."""
        if self.answering_s is None:
            return None
        reading = self.reading_s.likely if self.reading_s else 0.0
        return reading / workers + self.answering_s.likely / at_once

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Amount):
                value = {"likely": value.likely, "low": value.low, "high": value.high}
            plain[name] = list(value) if isinstance(value, tuple) else value
        return plain


_NOTHING = Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=0.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one document of the sample will take; nothing where it cannot be read."""

    pages: int = 0
    reading_s: float | None = None
    plan: Plan = _NOTHING
    at_most_usd: float | None = 0.0


def plan(
    job: Job,
    paths: Iterable[str],
    workspace: Workspace,
    *,
    sample: int | None = SAMPLE,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> JobPlan:
    """What the job takes for these documents; `sample` of them are read, None: all. They are in the library then.

    No model is asked anything. Raises JobError where none of them can be read, and what a Workspace raises.
    """
    sizes = sorted((_size(path), path) for path in paths)
    if not sizes:
        raise JobError("there are no documents", "name files or folders that hold some")
    chosen = Sample([size for size, _ in sizes], sample)
    surveyor = _Surveyor(job, workspace)
    seen: list[_Seen] = []
    for number, index in enumerate(chosen.indexes):
        seen.append(surveyor.see(number, sizes[index][1]))
        on_progress(number + 1, len(chosen.indexes))
    if len(surveyor.unreadable) == len(seen):
        raise JobError(f"none of {len(seen)} documents can be read: {surveyor.unreadable[0]}", "check the files")

    def total(values: Sequence[float | None]) -> Amount | None:
        return None if None in values else chosen.total(values)

    def whole(values: Sequence[float]) -> Amount:
        return chosen.total(values) or Amount(0, 0, 0)

    plans = [one.plan for one in seen]
    at_most = total([one.at_most_usd for one in seen])
    seconds = total([one.seconds for one in plans])
    return JobPlan(
        documents=len(sizes),
        bytes=sum(size for size, _ in sizes),
        tasks=len(job.tasks),
        sampled=len(seen),
        unreadable=tuple(surveyor.unreadable),
        impossible=tuple(surveyor.impossible),
        model=workspace.model,
        pages=whole([one.pages for one in seen]),
        calls=whole([one.calls for one in plans]),
        tokens_in=whole([one.tokens_in for one in plans]),
        tokens_out=whole([one.tokens_out for one in plans]),
        usd=total([one.cost_usd for one in plans]),
        at_most_usd=None if at_most is None else at_most.likely,
        reading_s=chosen.total([one.reading_s for one in seen]),
        answering_s=None if seconds is None else seconds.over(1 / surveyor.pace()),
    )


class _Surveyor:
    """Reads documents of a sample, and has the workflows plan."""

    def __init__(self, job: Job, workspace: Workspace) -> None:
        self._job = job
        self._workspace = workspace
        self._planned_s = self._taken_s = 0.0
        self._warm = False
        self.unreadable: list[str] = []
        self.impossible: list[str] = []
        # What takes time once is no part of what a document takes.
        _ = workspace.embedder

    def see(self, number: int, path: str) -> _Seen:
        """What the document takes of which this is the path, `number` of the sample."""
        stages: set[str] = set()
        started = time.monotonic()
        try:
            (document,) = self._workspace.read(
                [path],
                password=self._job.password,
                on_event=lambda event: stages.add(event.stage) if isinstance(event, Progress) else None,
                named_only=True,
            )
            self._workspace.fill(document)
        except DocumentError as error:
            self.unreadable.append(str(error))
            return _Seen()
        seconds = time.monotonic() - started
        tasks, plans = self._some_tasks(number), list[Plan]()
        for task in tasks:
            try:
                made = self._workspace.plan(task.request, [document], workflow=task.workflow, profile=self._job.profile)
                self._time(number, task, document, made)
            except WorkflowError as error:
                self.impossible.append(f"{path}: {error}")
            else:
                plans.append(made)
        reading_s = seconds if "indexing" in stages else None
        return _Seen(len(document.pages), reading_s, *_summed(plans, len(self._job.tasks) / len(tasks)))

    def pace(self) -> float:
        """By what the seconds of plans are to be multiplied, going by the answers that were made."""
        return self._taken_s / self._planned_s if self._planned_s and self._taken_s else 1.0

    def _some_tasks(self, number: int) -> Sequence[Task]:
        tasks, first = self._job.tasks, number * _TASKS_EACH
        if len(tasks) <= _TASKS_EACH:
            return tasks
        return [tasks[(first + offset) % len(tasks)] for offset in range(_TASKS_EACH)]

    def _time(self, number: int, task: Task, document: Document, made: Plan) -> None:
        """Offline, answers cost nothing: some are made, since machines differ more than documents."""
        if number >= _ANSWERED or self._workspace.model != OFFLINE or not made.seconds:
            return
        for timed in (True,) if self._warm else (False, True):
            started = time.monotonic()
            self._workspace.ask(task.request, [document], workflow=task.workflow, store="off")
            if timed:
                self._planned_s += made.seconds
                self._taken_s += time.monotonic() - started
        self._warm = True


def _summed(plans: Sequence[Plan], times: float) -> tuple[Plan, float | None]:
    """The plans together, so many times, and what they cost at most."""

    def total(values: Iterable[float | None]) -> float | None:
        known = list(values)
        return None if None in known else times * sum(value for value in known if value is not None)

    summed = Plan(
        calls=round(times * sum(plan.calls for plan in plans)),
        tokens_in=round(times * sum(plan.tokens_in for plan in plans)),
        tokens_out=round(times * sum(plan.tokens_out for plan in plans)),
        cost_usd=total(plan.cost_usd for plan in plans),
        seconds=total(plan.seconds for plan in plans),
    )
    return summed, total((plan.at_most or plan).cost_usd for plan in plans)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
