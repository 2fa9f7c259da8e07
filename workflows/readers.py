"""Who reads: for each run a reader, offline or through a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Protocol

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.config import Config, load_config
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.model import ChatModel, ModelSpec, Profile
from lcdoc.agents.models.names import is_offline, resolve, wanted
from lcdoc.agents.models.purse import Purse
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.memory.runs import RunEndedError, Runs, RunUnderWayError, UnknownRunError
from lcdoc.retrieval.embedders import Embedder
from lcdoc.workflows.events import Event, Progress, Stage
from lcdoc.workflows.run import OFFLINE, Run
from lcdoc.workflows.workflow import ignore_events

if TYPE_CHECKING:
    from lcdoc.agents.models.shared_limits import SharedLimits
    from lcdoc.agents.models.stack import ModelStack
    from lcdoc.workflows.keeping import For, Keeping, Kept
    from lcdoc.workflows.rehearsal import Stage as Rehearsal

_OFFLINE_CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to answer, and how."""

    question: str
    workflow: str
    documents: Sequence[Document]
    budget: Budget
    resumed: RunRecord | None = None
    """The run to go on with."""

    def begin(self, runs: Runs, model: str) -> str:
        """The id of the run as it is entered in `runs`, or of the one it goes on with."""
        if self.resumed is not None:
            return self.resumed.id
        return runs.start(self.question, self.workflow, model, self._named, asdict(self.budget))

    def taking_over(self, runs: Runs, model: str) -> Asked:
        """The same, going on with the run that is `resumed`, else with one that was cut off. It is this process's then.

        Raises RunUnderWayError, RunEndedError and UnknownRunError for a `resumed` that cannot be taken over.
        """
        if self.resumed is not None:
            runs.resume(self.resumed.id)
            return self
        found = runs.cut_off(self.question, self.workflow, model, self._named)
        if found is None:
            return self
        try:
            runs.resume(found.id)
        except (RunUnderWayError, RunEndedError, UnknownRunError):
            # Another process was faster.
            return self
        return replace(self, resumed=found)

    @property
    def _named(self) -> list[tuple[str, str]]:
        return [(document.id, document.name) for document in self.documents]


class Readers(Protocol):
    """Gives each run its reader."""

    def start(self, asked: Asked) -> Run:
        """A run that has begun; its clock is ticking.

        It goes on from `asked.resumed`, else from the latest run of this question over these documents if that was cut
        off and its answers may be used. Raises what `Asked.taking_over` raises.
        """
        ...


class OfflineReaders:
    """Runs without a language model. They cost nothing but time, of which `purse` may have a cap."""

    def __init__(self, embedder: Embedder, runs: Runs, *, purse: Purse | None = None) -> None:
        self._reader = OfflineReader(embedder)
        self._runs = runs
        self._purse = purse

    def start(self, asked: Asked) -> Run:
        asked = asked.taking_over(self._runs, OFFLINE)
        return Run(
            asked.begin(self._runs, OFFLINE),
            self._reader,
            Ledger(asked.budget, purse=self._purse),
            self._runs,
            concurrency=_OFFLINE_CONCURRENCY,
            resumed=asked.resumed,
        )


class Resuming:
    """Readers whose run is one that was cut off."""

    def __init__(self, readers: Readers, run: RunRecord) -> None:
        self._readers = readers
        self._run = run

    def start(self, asked: Asked) -> Run:
        """The run, gone on with."""
        return self._readers.start(replace(asked, resumed=asked.resumed or self._run))


class ReadingDesk:
    """The model that a workspace answers with, if any: chosen by name at once, connected at the first question.

    `shared` is who shares what the model's server admits among those that ask it: None: the processes of this machine.
    Raises ModelNameError, ModelConfigError for a name, a key or a configuration that does not fit.
    """

    def __init__(
        self,
        library: Library,
        model: str | None = None,
        config: Config | None = None,
        *,
        shared: SharedLimits | None = None,
    ) -> None:
        self._library = library
        self._shared = shared
        self._config = config or load_config()
        name = wanted(model, self._config)
        self._chosen = None if is_offline(name) else resolve(name, self._config)
        self._stack: ModelStack | None = None
        self._on_event: Callable[[Event], None] = ignore_events

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

    async def readers(
        self,
        embedder: Embedder,
        *,
        store: StoreMode,
        profile: Profile | None,
        on_event: Callable[[Event], None] = ignore_events,
        purse: Purse | None = None,
    ) -> Readers:
        """What gives runs their readers. At its first use a model's server may be asked for the model's window.

        `on_event` is told when a local model is fetched or loaded, from the event loop of the run. `purse` is what the
        runs share with others, beside the budget that each of them has.
        """
        self._on_event = on_event
        if self._chosen is None:
            return OfflineReaders(embedder, self._library.runs, purse=purse)
        from lcdoc.workflows.model_readers import ModelReaders

        stack = await self._connected()
        return ModelReaders(stack, store=store, profile=profile, warnings=self._chosen.notes, purse=purse)

    async def stage(self, embedder: Embedder, *, profile: Profile | None) -> Rehearsal | None:
        """Where a run through the model can be rehearsed; None when no model is asked."""
        if self._chosen is None:
            return None
        from lcdoc.workflows.model_readers import stage_of

        return stage_of(await self._connected(), OfflineReader(embedder), profile=profile)

    async def chat(self, ledger: Ledger, *, store: StoreMode) -> ChatModel:
        """The model itself, its calls counted by `ledger`. Raises ValueError where none was chosen."""
        return (await self._connected()).for_run(ledger, store=store)

    @property
    def runs_here(self) -> bool:
        """Whether the model runs inside lcdoc."""
        return self._chosen is not None and self._chosen.local is not None

    async def keeping(
        self,
        documents: Sequence[Document],
        embedder: Embedder,
        *,
        recipe: str | None,
        purposes: Sequence[For],
        profile: Profile | None,
        on_event: Callable[[Event], None],
    ) -> Keeping:
        """See `lcdoc.workflows.keeping.prepare`. Raises ModelConfigError for a model that runs elsewhere."""
        from lcdoc.workflows.keeping import prepare
        from lcdoc.workflows.model_readers import stage_of

        self._on_event = on_event
        if not self.runs_here:
            remedy = "name a model that runs here: --model local/PATH"
            raise ModelConfigError(self.model, "what it reads is not kept here", remedy)
        stack = await self._connected()
        if stack.local is None:
            raise ValueError(f"{self.model} runs here and has no client that does")
        stage = stage_of(stack, OfflineReader(embedder), profile=profile)
        return await prepare(self._library, documents, stage, stack.local, recipe=recipe, purposes=purposes)

    async def keep(self, keeping: Keeping, on_event: Callable[[Event], None]) -> Kept:
        """See `lcdoc.workflows.keeping.keep`."""
        from lcdoc.workflows.keeping import keep

        self._on_event = on_event
        return await keep(self._library, keeping, on_event)

    async def _connected(self) -> ModelStack:
        if self._stack is None:
            if self._chosen is None:
                raise ValueError("no model was chosen")
            # Not before a model is asked: offline answers need not wait for its imports.
            from lcdoc.agents.models.discovery import resolve_online
            from lcdoc.agents.models.machine_limits import machine_limits
            from lcdoc.agents.models.stack import ModelStack

            self._chosen = await resolve_online(self._chosen, memos=self._library.memos, on_progress=self._progress)
            self._stack = ModelStack(
                self._chosen,
                self._library,
                on_progress=self._progress,
                kept=self._config.kept_caches,
                shared=machine_limits() if self._shared is None else self._shared,
            )
        return self._stack

    def _progress(self, stage: Stage, done: int, total: int) -> None:
        self._on_event(Progress(stage, self.model, done, total))

    async def aclose(self) -> None:
        """Close the model's connections."""
        if self._stack is not None:
            await self._stack.aclose()
