"""What answering would send, without sending it: for estimates, and to show the prompts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lcdoc.agents.models.model import Request, TokenUsage, count_prompt
from lcdoc.agents.models.rehearsal import NotSentError, RehearsalModel
from lcdoc.agents.notes import Note
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Passage, Reader
from lcdoc.retrieval.tokens import estimate_tokens
from lcdoc.workflows.workflow import Plan, Requests

_SHARE_OF_OUTPUT = 0.25
"""Of the tokens an answer may have, how many it has, where nothing is known of the model."""


_TEMPLATE_TOKENS = 4
"""What a chat template usually puts around a message."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a call to a model has taken so far, on average."""

    tokens_out: float
    seconds: float


class Stage:
    """A reader whose requests are recorded instead of being sent."""

    def __init__(self, reader: PromptedReader, model: RehearsalModel, likely: Reader, pace: Pace | None = None) -> None:
        """`likely` reads what `reader` does not, since nothing is sent: its notes stand for the model's."""
        self._likely = likely
        self._reader = reader
        self._model = model
        self._pace = pace

    @property
    def reader(self) -> PromptedReader:
        """The reader; its skills end in NotSentError, as `sent` expects."""
        return self._reader

    async def sent(self, asking: Callable[[PromptedReader], Awaitable[object]]) -> tuple[Request, ...]:
        """What `asking` would send before its first answer."""
        self._model.requests.clear()
        with suppress(NotSentError):
            await asking(self._reader)
        return tuple(self._model.requests)

    async def reading(self, passages: Sequence[Passage], question: str) -> tuple[Request, ...]:
        """The requests with which the passages would be read."""
        self._model.requests.clear()
        for part in self._reader.parts(passages, question):
            with suppress(NotSentError):
                await self._reader.read_many(part, question)
        return tuple(self._model.requests)

    async def likely_note(self, passages: Sequence[Passage], question: str) -> Note:
        """What may be noted on the passages."""
        return (await self._likely.read_many(passages, question)).model_copy(update={"found": True})

    async def answering(self, question: str, notes: Sequence[Note]) -> tuple[Request, ...]:
        """The request that would have the question answered from `notes`."""
        self._model.requests.clear()
        with suppress(NotSentError):
            await self._reader.answer(question, notes)
        return tuple(self._model.requests)

    def plan(self, requests: Requests, *, more_tokens_in: int = 0) -> Plan:
        """Calls, tokens, money and time of `requests`: what is likely, and with `at_most` what cannot be passed.

        `more_tokens_in` are those that prompts may have beyond `requests`, where notes are longer than is likely.
        """
        likely = (*requests.reading, *requests.answering)
        answering_again = requests.answering if requests.widening else ()
        all_of_them = (*likely, *requests.widening, *answering_again)
        usage = TokenUsage(
            tokens_in=sum(_likely_tokens(request) for request in likely),
            tokens_out=round(sum(self._likely_answer(request) for request in likely)),
        )
        most = TokenUsage(
            tokens_in=more_tokens_in + sum(count_prompt(self._model, request) for request in all_of_them),
            tokens_out=sum(request.max_tokens for request in all_of_them),
        )
        at_most = self._plan(len(all_of_them), most)
        return replace(self._plan(len(likely), usage), requests=requests, at_most=at_most)

    def _likely_answer(self, request: Request) -> float:
        return _SHARE_OF_OUTPUT * request.max_tokens if self._pace is None else self._pace.tokens_out

    def _plan(self, calls: int, usage: TokenUsage) -> Plan:
        return Plan(
            calls=calls,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=self._model.spec.cost_usd(usage),
            seconds=None if self._pace is None else round(self._pace.seconds * calls, 1),
        )


def _likely_tokens(request: Request) -> int:
    """An estimate in the middle: the model's own count errs high where its tokenizer is not at hand."""
    return sum(estimate_tokens(message.content) + _TEMPLATE_TOKENS for message in request.messages)
