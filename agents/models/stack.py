"""The stack: a model with all its layers, as runs use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcdoc.agents.models.budget import BudgetedModel, Ledger
from lcdoc.agents.models.call_store import StoredModel, StoreMode
from lcdoc.agents.models.counting import counter_for
from lcdoc.agents.models.kept_settings import KeptCaches
from lcdoc.agents.models.limiter import LimitedModel, Limiter, Turns
from lcdoc.agents.models.local import LocalModel, OnProgress
from lcdoc.agents.models.model import ChatModel, ModelSpec
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.read_ahead import AheadModel, ReadAhead
from lcdoc.agents.models.response_formats import FormatChoice
from lcdoc.agents.models.retry import RetryingModel, RetryPolicy
from lcdoc.agents.models.shared_limits import SharedLimiter, SharedLimits, server_name
from lcdoc.agents.models.structured import StructuredModel
from lcdoc.agents.models.through_caches import ThroughCaches
from lcdoc.agents.models.timeouts import Timeouts
from lcdoc.memory import Library

if TYPE_CHECKING:
    from types import TracebackType


class ModelStack:
    """A model's connections and limits, shared by all runs of a process; each run gets its own layers around them.

    `policy` and `timeouts` go before those of `chosen`; `on_progress` is told of the loading of a local model, and
    `kept` says what is kept of what it reads. With `shared`, what the server admits is shared with other processes.
    Belongs to the event loop it is first used in. Use as an async context manager, or `aclose` it. Raises
    ModelConfigError for an address, key, header or tokenizer that does not do.
    """

    def __init__(
        self,
        chosen: Chosen,
        library: Library,
        *,
        policy: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        on_progress: OnProgress | None = None,
        kept: KeptCaches | None = None,
        shared: SharedLimits | None = None,
    ) -> None:
        self.library = library
        self._policy = policy or (RetryPolicy(attempts=chosen.attempts) if chosen.attempts else RetryPolicy())
        self._client: OpenAIModel | LocalModel
        if chosen.local is not None:
            self._client = LocalModel(
                chosen.spec, chosen.local, on_progress, caches=library.caches, kept=kept, memos=library.memos
            )
        else:
            self._client = OpenAIModel(
                chosen.spec,
                chosen.key,
                secret_headers=chosen.secret_headers,
                count=counter_for(chosen.spec, tokenizer=chosen.tokenizer),
                timeouts=timeouts or chosen.timeouts,
            )
        self._choice = FormatChoice(chosen.spec, library.memos)
        self._turns: Turns = Limiter(chosen.spec.limits)
        if shared is not None and chosen.spec.server is not None:
            name = server_name(chosen.spec.server, chosen.key)
            self._turns = SharedLimiter(shared, name, chosen.spec.limits)
        self._limited = LimitedModel(self._client, self._turns)

    @property
    def local(self) -> LocalModel | None:
        """The client, where the model runs here."""
        return self._client if isinstance(self._client, LocalModel) else None

    @property
    def spec(self) -> ModelSpec:
        return self._client.spec

    def read_ahead(self) -> ReadAhead | None:
        """What has one run's pieces read ahead; None where the model cannot."""
        return ReadAhead(self._client.read_ahead) if isinstance(self._client, LocalModel) else None

    def for_run(self, ledger: Ledger, *, store: StoreMode = "use", ahead: ReadAhead | None = None) -> ChatModel:
        """The model for one run, whose calls are admitted and counted by `ledger`, and move `ahead` on."""
        sent: ChatModel = self._limited if ahead is None else AheadModel(self._limited, ahead)
        sent = BudgetedModel(sent, ledger)
        if isinstance(self._client, OpenAIModel):
            # What fails inside lcdoc fails again.
            sent = RetryingModel(sent, self._policy, ledger)
        structured = StructuredModel(sent, self.library.memos, choice=self._choice)
        stored = StoredModel(structured, self.library.calls, ledger, mode=store)
        return ThroughCaches(stored, self._client.through) if isinstance(self._client, LocalModel) else stored

    async def aclose(self) -> None:
        """Close the connections."""
        if isinstance(self._turns, SharedLimiter):
            await self._turns.aclose()
        await self._client.aclose()

    async def __aenter__(self) -> ModelStack:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.aclose()
