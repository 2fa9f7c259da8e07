"""Readers that speak through a model, and the stage where their runs are rehearsed."""

from __future__ import annotations

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.fingerprint import public_url
from lcdoc.agents.models.model import ModelSpec, Profile
from lcdoc.agents.models.purse import Purse
from lcdoc.agents.models.rehearsal import RehearsalModel
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.through_caches import ThroughCaches
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Reader
from lcdoc.memory import Library
from lcdoc.memory.usage import ModelUsage
from lcdoc.workflows.readers import Asked
from lcdoc.workflows.rehearsal import Pace, Stage
from lcdoc.workflows.run import Run

_AHEAD = 2
"""Steps under way for each request that the model's server is sent at once: while one waits, the next is made."""


class ModelReaders:
    """Runs through a model. Their usage is recorded call by call, so that a killed process leaves true figures."""

    def __init__(
        self,
        stack: ModelStack,
        *,
        store: StoreMode,
        profile: Profile | None,
        warnings: tuple[str, ...] = (),
        purse: Purse | None = None,
    ) -> None:
        self._stack = stack
        self._store = store
        self._profile = profile
        self._warnings = warnings
        self._purse = purse

    def start(self, asked: Asked) -> Run:
        library, spec = self._stack.library, self._stack.spec
        if asked.resumed is not None or self._store == "use":
            # Whoever wants the model asked anew does not want what it said before the run was cut off.
            asked = asked.taking_over(library.runs, spec.name)
        run_id = asked.begin(library.runs, spec.name)
        before = dict(asked.resumed.usage) if asked.resumed else {}

        def record(model: str, totals: ModelUsage) -> None:
            library.runs.record(run_id, model, before.get(model, ModelUsage()) + totals)

        ledger = Ledger(asked.budget, on_usage=record, purse=self._purse)
        ahead = self._stack.read_ahead()
        model = self._stack.for_run(ledger, store=self._store, ahead=ahead)
        reader = PromptedReader(model, secret=library.secret(), profile=self._profile)
        return Run(
            run_id,
            reader,
            ledger,
            library.runs,
            model=spec.name,
            warnings=self._warnings,
            concurrency=_AHEAD * spec.limits.concurrency,
            resumed=asked.resumed,
            store=self._store,
            ahead=ahead,
            recipes=model.recipes if isinstance(model, ThroughCaches) else None,
        )


def stage_of(stack: ModelStack, likely: Reader, *, profile: Profile | None) -> Stage:
    """Where runs through the model are rehearsed; `likely` stands in for what the model would note."""
    library = stack.library
    model = RehearsalModel(stack.for_run(Ledger(), store="off"))
    reader = PromptedReader(model, secret=library.secret(), profile=profile)
    return Stage(reader, model, likely, _pace(library, stack.spec))


def _pace(library: Library, spec: ModelSpec) -> Pace:
    """What calls to this model took: its answers in the call store, and its latest runs."""
    used = [run.usage[spec.name] for run in library.runs.list(20) if spec.name in run.usage]
    answered = sum(usage.calls - usage.failed_calls for usage in used)
    server = spec.server
    by_kind = (
        library.calls.pace(public_url(server.base_url), server.model) if server else library.calls.pace("", spec.name)
    )
    if not answered:
        return Pace(by_kind)
    return Pace(
        by_kind,
        tokens_out=sum(usage.tokens_out for usage in used) / answered,
        seconds=sum(usage.seconds for usage in used) / answered,
    )
