"""The layer that sends nothing the run's caps do not admit. It stands inside retry: every attempt is paid for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from lcdoc.agents.models.errors import ModelConfigError, ModelError, ModelNameError
from lcdoc.agents.models.ledger import Budget, Ledger, Reservation
from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, Request, TokenUsage
from lcdoc.agents.models.queue_time import watch_queues
from lcdoc.agents.models.worst_case import longest_answer, prompt_tokens

__all__ = ["Budget", "BudgetedModel", "Ledger", "Reservation"]


class BudgetedModel:
    """A model whose calls are entered in a run's ledger, and end with the run's time at the latest."""

    def __init__(self, inner: ChatModel, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises BudgetExceededError where a cap does not admit it, and what `Ledger.reserve` raises."""
        if self._ledger.remaining_s() == 0:
            raise self._ledger.out_of_time(self.spec)
        worst = TokenUsage(prompt_tokens(self._inner, request), 0, longest_answer(self.spec, request))
        deadline = asyncio.timeout(self._ledger.remaining_s())
        try:
            async with deadline:
                reservation = await self._ledger.reserve(self.spec, worst)
                return await self._send(request, reservation)
        except TimeoutError as error:
            if deadline.expired():
                raise self._ledger.out_of_time(self.spec) from error
            raise

    async def _send(self, request: Request, reservation: Reservation) -> Completion:
        heard: list[str] = []

        def listen(piece: str) -> None:
            heard.append(piece)
            if request.on_text is not None:
                request.on_text(piece)

        clock = asyncio.get_running_loop().time
        start = clock()
        with watch_queues() as queues:
            try:
                completion = await self._inner.complete(replace(request, on_text=listen))
            except (ModelConfigError, ModelNameError):
                self._ledger.release(reservation)
                raise
            except ModelError as error:
                self._ledger.settle(reservation, error.usage, seconds=clock() - start - queues.total_s, failed=True)
                raise
            except BaseException:
                # Cancelled, or broken by a listener: the server charges what it has read and written until then.
                if queues.queued:
                    self._ledger.release(reservation)
                else:
                    written = min(self.count_tokens("".join(heard)), reservation.worst.tokens_out) if heard else 0
                    usage = TokenUsage(reservation.worst.tokens_in, 0, written, estimated=True)
                    self._ledger.settle(reservation, usage, seconds=clock() - start - queues.total_s, failed=True)
                raise
        self._ledger.settle(reservation, completion.usage, seconds=completion.seconds, failed=False)
        return completion
