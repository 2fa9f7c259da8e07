"""One evaluation from its order to its results: which questions, who is asked, what is kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.model import Profile
from lcdoc.evaluation.cases import Reading
from lcdoc.evaluation.desk import BASELINES, BEST_SENTENCE, CLOSED_BOOK, FIRST_SENTENCE, Desk
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.own_questions import SUFFIXES, own_readings
from lcdoc.evaluation.report import Result, result_of
from lcdoc.evaluation.running import CapReachedError, Progress, Runner
from lcdoc.evaluation.sampling import digest_of, sampled
from lcdoc.evaluation.sets import data_folder, readings, set_named
from lcdoc.memory import Library, library_path
from lcdoc.retrieval import load_embedder
from lcdoc.workflows.errors import UnknownWorkflowError
from lcdoc.workflows.registry import AUTO, names
from lcdoc.workflows.run import OFFLINE
from lcdoc.workflows.workflow import Plan

T = TypeVar("T")
_UNCAPPED = 500
"""Questions that a server, which may charge for them, is sent without a cap, at most."""
_REHEARSED = 6
"""Questions that an estimate goes by."""


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of an evaluation."""

    set: str
    split: str
    part: str
    readings: tuple[Reading, ...]
    limit: int | None = None
    seed: int = 0

    @property
    def count(self) -> int:
        return sum(len(reading.cases) for reading in self.readings)

    @property
    def line(self) -> str:
        """How many they are."""
        count, documents = self.count, len(self.readings)
        return f"{count:,} question{'s'[: count != 1]} about {documents:,} document{'s'[: documents != 1]}"

    def settings(self) -> dict[str, Any]:
        """What names them, for the record."""
        facts = {"set": self.set, "split": self.split, "part": self.part, "limit": self.limit, "seed": self.seed}
        return facts | {"questions": digest_of(self.readings)}


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked."""

    workflow: str = AUTO
    """Or one of BASELINES."""
    model: str | None = None
    embedder: str = "minilm"
    baselines: bool = True
    """Ask those who show what a score is worth, too."""
    store: StoreMode = "use"
    profile: Profile | None = None

    def ways(self, model: str) -> list[str]:
        """All who are asked, where the chosen model is `model`. Raises UnknownWorkflowError, EvaluationError."""
        workflow = self.workflow.strip().lower().replace("-", "_")
        known = (*names(), AUTO, *BASELINES)
        if workflow not in known:
            raise UnknownWorkflowError(self.workflow, known)
        if workflow == CLOSED_BOOK and model == OFFLINE:
            raise EvaluationError("closed_book asks a model without the document", "name one with --model")
        beside = [FIRST_SENTENCE, BEST_SENTENCE] if model == OFFLINE else [CLOSED_BOOK, FIRST_SENTENCE, BEST_SENTENCE]
        return list(dict.fromkeys([workflow, *(beside if self.baselines else [])]))


def evaluation_library(path: str | os.PathLike[str] | None = None) -> Path:
    """Where evaluations are kept: `path`, else beside the user's own library, which is not to fill up with sets."""
    return Path(path).expanduser().absolute() if path else library_path().with_name("evaluation.sqlite")


def questions_of(
    name: str,
    *,
    data: str | os.PathLike[str] | None = None,
    split: str | None = None,
    part: str = "test",
    limit: int | None = None,
    seed: int = 0,
) -> Questions:
    """The questions of a set, or of a user's own file. Raises EvaluationError.

    `part` leaves out what the packaged span reader has learned from, or takes `all`.
    """
    path = Path(name)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        if split is not None:
            raise EvaluationError("a file of questions has no splits", "leave --split away")
        return Questions(path.name, "", "all", tuple(sampled(own_readings(path), limit, seed=seed)), limit, seed)
    found = set_named(name)
    every = readings(found, data_folder(data), split)
    parted = {reading.part for reading in every} != {"test"}
    chosen = [reading for reading in every if part in ("all", reading.part)]
    if not chosen:
        raise EvaluationError(f"{found.name} has no {part} part", "take --part all")
    shown = part if parted else "all"
    drawn = tuple(sampled(chosen, limit, seed=seed))
    return Questions(found.name, split or found.splits[0], shown, drawn, limit, seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an evaluation."""

    results: tuple[Result, ...]
    """Of all who were asked, in their order."""
    stopped: str = ""
    """Why not every question was asked; empty where each was."""


def evaluated(
    library: Library,
    questions: Questions,
    asked: Asked,
    *,
    budget: Budget,
    on_progress: Callable[[Progress], None],
) -> Outcome:
    """Put the questions to all who are asked. Goes on with what was begun before; a cap ends it before its time.

    Raises what `Runner.run` raises, and EmbedderError, LibraryError; what was answered until then is kept.
    """
    desk = _desk(library, asked)
    if desk.may_be_paid and budget == Budget() and questions.count > _UNCAPPED:
        problem = f"{questions.count:,} questions to {desk.model}, and no cap"
        raise EvaluationError(problem, "give --limit, or a cap such as --max-cost; --estimate tells what it would take")
    ways = {
        way: library.evaluations.begin(
            questions.settings()
            | {"way": way, "model": OFFLINE if way in (FIRST_SENTENCE, BEST_SENTENCE) else desk.model}
            | {"embedder": asked.embedder, "profile": asked.profile},
            questions.count,
        )
        for way in asked.ways(desk.model)
    }
    runner = Runner(desk, questions.readings, ways, budget=budget, on_progress=on_progress)
    stopped = ""
    try:
        asyncio.run(_closing(desk, runner.run()))
    except CapReachedError as error:
        stopped = str(error)
    begun = [library.evaluations.find(evaluation_id) for evaluation_id in ways.values()]
    results = tuple(result_of(library, evaluation) for evaluation in begun if evaluation.answered)
    if not results:
        raise CapReachedError("the cap admits no question at all", "raise it")
    return Outcome(results, stopped)


def planned(library: Library, questions: Questions, asked: Asked) -> dict[str, Plan | None]:
    """What asking would take, by who is asked, judged by a few of the questions; None: no model is asked."""
    desk = _desk(library, asked)
    few = [replace(reading, cases=reading.cases[:1]) for reading in questions.readings[:_REHEARSED]]

    async def rehearse() -> dict[str, Plan | None]:
        plans: dict[str, list[Plan]] = {way: [] for way in asked.ways(desk.model)}
        for reading in few:
            document = reading.document()
            desk.add(document)
            for way, known in plans.items():
                plan = await desk.plan(way, reading.cases[0], document)
                if plan is not None:
                    known.append(plan)
        return {way: _scaled(known, questions.count) for way, known in plans.items()}

    return asyncio.run(_closing(desk, rehearse()))


@contextmanager
def searching(library: Library, embedder: str) -> Iterator[Desk]:
    """A desk that only searches."""
    desk = Desk(library, load_embedder(embedder), model=OFFLINE)
    try:
        yield desk
    finally:
        asyncio.run(desk.aclose())


def _desk(library: Library, asked: Asked) -> Desk:
    return Desk(library, load_embedder(asked.embedder), model=asked.model, store=asked.store, profile=asked.profile)


async def _closing(desk: Desk, work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    finally:
        await desk.aclose()


def _scaled(plans: Sequence[Plan], count: int) -> Plan | None:
    """The sum over `count` questions, of which `plans` are a sample."""
    if not plans:
        return None
    times = count / len(plans)

    def total(name: str) -> float | None:
        values = [getattr(plan, name) for plan in plans]
        return None if None in values else times * sum(values)

    worst = [plan.at_most for plan in plans if plan.at_most is not None]
    return Plan(
        calls=round(total("calls") or 0),
        tokens_in=round(total("tokens_in") or 0),
        tokens_out=round(total("tokens_out") or 0),
        cost_usd=total("cost_usd"),
        seconds=total("seconds"),
        at_most=_scaled(worst, count) if len(worst) == len(plans) else None,
    )
