"""Who reads: for each run a reader, offline or through a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.config import Config, load_config
from lcdoc.agents.models.discovery import resolve_online
from lcdoc.agents.models.fingerprint import public_url
from lcdoc.agents.models.model import ModelSpec, Profile
from lcdoc.agents.models.names import is_offline, resolve, wanted
from lcdoc.agents.models.rehearsal import RehearsalModel
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.memory.runs import RunEndedError, Runs, RunUnderWayError, UnknownRunError
from lcdoc.memory.usage import ModelUsage
from lcdoc.retrieval.embedders import Embedder
from lcdoc.workflows.rehearsal import Pace, Stage
from lcdoc.workflows.run import OFFLINE, Run

_OFFLINE_CONCURRENCY = 2
_AHEAD = 2
"""Steps under way for each request that the model's server is sent at once: while one waits, the next is made."""


class Readers(Protocol):
    """Gives each run its reader."""

    def start(
        self,
        question: str,
        workflow: str,
        documents: Sequence[Document],
        budget: Budget,
        *,
        resumed: RunRecord | None = None,
    ) -> Run:
        """A run that has begun; its clock is ticking.

        It goes on from `resumed`, else from the latest run of this question over these documents if that was cut off
        and its answers may be used. Raises RunUnderWayError, RunEndedError and UnknownRunError for a `resumed` that
        cannot be taken over.
        """
        ...


class OfflineReaders:
    """Runs without a language model. They cost nothing."""

    def __init__(self, embedder: Embedder, runs: Runs) -> None:
        self._reader = OfflineReader(embedder)
        self._runs = runs

    def start(
        self,
        question: str,
        workflow: str,
        documents: Sequence[Document],
        budget: Budget,
        *,
        resumed: RunRecord | None = None,
    ) -> Run:
        resumed = _taken_over(
            self._runs, resumed, question=question, workflow=workflow, model=OFFLINE, documents=documents
        )
        named, caps = _named(documents), asdict(budget)
        run_id = resumed.id if resumed else self._runs.start(question, workflow, OFFLINE, named, caps)
        return Run(run_id, self._reader, Ledger(budget), self._runs, concurrency=_OFFLINE_CONCURRENCY, resumed=resumed)


class ModelReaders:
    """Runs through a model. Their usage is recorded call by call, so that a killed process leaves true figures."""

    def __init__(
        self, stack: ModelStack, *, store: StoreMode, profile: Profile | None, warnings: tuple[str, ...] = ()
    ) -> None:
        self._stack = stack
        self._store = store
        self._profile = profile
        self._warnings = warnings

    def start(
        self,
        question: str,
        workflow: str,
        documents: Sequence[Document],
        budget: Budget,
        *,
        resumed: RunRecord | None = None,
    ) -> Run:
        library, spec = self._stack.library, self._stack.spec
        if resumed is not None or self._store == "use":
            # Whoever wants the model asked anew does not want what it said before the run was cut off.
            resumed = _taken_over(
                library.runs, resumed, question=question, workflow=workflow, model=spec.name, documents=documents
            )
        named, caps = _named(documents), asdict(budget)
        run_id = resumed.id if resumed else library.runs.start(question, workflow, spec.name, named, caps)
        before = dict(resumed.usage) if resumed else {}

        def record(model: str, totals: ModelUsage) -> None:
            library.runs.record(run_id, model, before.get(model, ModelUsage()) + totals)

        ledger = Ledger(budget, on_usage=record)
        reader = PromptedReader(
            self._stack.for_run(ledger, store=self._store), secret=library.secret(), profile=self._profile
        )
        return Run(
            run_id,
            reader,
            ledger,
            library.runs,
            model=spec.name,
            warnings=self._warnings,
            concurrency=_AHEAD * spec.limits.concurrency,
            resumed=resumed,
            store=self._store,
        )


class Resuming:
    """Readers whose run is one that was cut off."""

    def __init__(self, readers: Readers, run: RunRecord) -> None:
        self._readers = readers
        self._run = run

    def start(
        self,
        question: str,
        workflow: str,
        documents: Sequence[Document],
        budget: Budget,
        *,
        resumed: RunRecord | None = None,
    ) -> Run:
        """The run, gone on with."""
        return self._readers.start(question, workflow, documents, budget, resumed=resumed or self._run)


def _named(documents: Sequence[Document]) -> list[tuple[str, str]]:
    return [(document.id, document.name) for document in documents]


def _taken_over(
    runs: Runs, asked: RunRecord | None, *, question: str, workflow: str, model: str, documents: Sequence[Document]
) -> RunRecord | None:
    """The run to go on from, which is this process's then: the one asked for, else one that was cut off."""
    if asked is not None:
        runs.resume(asked.id)
        return asked
    found = runs.cut_off(question, workflow, model, _named(documents))
    if found is None:
        return None
    try:
        runs.resume(found.id)
    except (RunUnderWayError, RunEndedError, UnknownRunError):
        # Another process was faster.
        return None
    return found


class ReadingDesk:
    """The model that a workspace answers with, if any: chosen by name at once, connected at the first question.

    Raises ModelNameError, ModelConfigError for a name, a key or a configuration that does not fit.
    """

    def __init__(self, library: Library, model: str | None = None, config: Config | None = None) -> None:
        self._library = library
        self._config = config or load_config()
        name = wanted(model, self._config)
        self._chosen = None if is_offline(name) else resolve(name, self._config)
        self._stack: ModelStack | None = None

    @property
    def model(self) -> str:
        """The name of the model, or `offline`."""
        return OFFLINE if self._chosen is None else self._chosen.spec.name

    @property
    def spec(self) -> ModelSpec | None:
        """What is known of the model; None: none is asked."""
        return None if self._chosen is None else self._chosen.spec

    def budget(self, asked: Budget | None) -> Budget:
        """The caps asked for; where none is, those of the configuration."""
        asked, config = asked or Budget(), self._config
        return Budget(
            usd=config.max_usd if asked.usd is None else asked.usd,
            tokens=config.max_tokens if asked.tokens is None else asked.tokens,
            calls=config.max_calls if asked.calls is None else asked.calls,
            seconds=config.max_seconds if asked.seconds is None else asked.seconds,
        )

    async def readers(self, embedder: Embedder, *, store: StoreMode, profile: Profile | None) -> Readers:
        """What gives runs their readers. At its first use a model's server may be asked for the model's window."""
        if self._chosen is None:
            return OfflineReaders(embedder, self._library.runs)
        return ModelReaders(await self._connected(), store=store, profile=profile, warnings=self._chosen.notes)

    async def stage(self, embedder: Embedder, *, profile: Profile | None) -> Stage | None:
        """Where a run through the model can be rehearsed; None when no model is asked."""
        if self._chosen is None:
            return None
        stack = await self._connected()
        model = RehearsalModel(stack.for_run(Ledger(), store="off"))
        reader = PromptedReader(model, secret=self._library.secret(), profile=profile)
        return Stage(reader, model, OfflineReader(embedder), _pace(self._library, stack.spec))

    async def _connected(self) -> ModelStack:
        if self._stack is None:
            if self._chosen is None:
                raise ValueError("no model was chosen")
            self._chosen = await resolve_online(self._chosen, memos=self._library.memos)
            self._stack = ModelStack(self._chosen, self._library)
        return self._stack

    async def aclose(self) -> None:
        """Close the model's connections."""
        if self._stack is not None:
            await self._stack.aclose()


def _pace(library: Library, spec: ModelSpec) -> Pace:
    """What calls to this model took: its answers in the call store, and its latest runs."""
    used = [run.usage[spec.name] for run in library.runs.list(20) if spec.name in run.usage]
    answered = sum(usage.calls - usage.failed_calls for usage in used)
    server = spec.server
    by_skill = (
        library.calls.pace(public_url(server.base_url), server.model) if server else library.calls.pace("", spec.name)
    )
    if not answered:
        return Pace(by_skill)
    return Pace(
        by_skill,
        tokens_out=sum(usage.tokens_out for usage in used) / answered,
        seconds=sum(usage.seconds for usage in used) / answered,
    )
