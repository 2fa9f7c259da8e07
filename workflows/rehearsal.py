"""What answering would send, without sending it: for estimates, and to show the prompts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from lcdoc.agents.models.model import Request, TokenUsage, count_prompt
from lcdoc.agents.models.rehearsal import NotSentError, RehearsalModel
from lcdoc.agents.notes import Note
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Passage, Reader
from lcdoc.retrieval.tokens import estimate_tokens
from lcdoc.workflows.workflow import Plan, Requests

LIKELY_TOKENS_OUT: Mapping[str, int] = {
    "read": 80,
    "list": 120,
    "merge": 200,
    "answer": 150,
    "direct": 200,
    "judge": 80,
    "summarize": 200,
    "condense": 200,
    "choose": 50,
    "extract": 300,
    "rows": 300,
}
"""Of one answer, by skill, where nothing is known of the model. Most readings of a long text find nothing."""
_FINDING_TOKENS_OUT = 140
"""The same of a reading that finds something, and of one that does not."""
_MISSING_TOKENS_OUT = 25
READINGS = ("read", "list")
"""Skills of which it makes a difference, and can be foreseen, whether something is found."""
_OTHER_TOKENS_OUT = 150
_GUESS_WEIGHT = 2
"""How many answers the guess for a skill is worth beside those that were seen."""
_TEMPLATE_TOKENS = 4
"""What a chat template usually puts around a message."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What calls to a model have taken so far, on average."""

    by_kind: Mapping[tuple[str, bool | None], tuple[float, int]]
    """Tokens of an answer, and of how many answers that is known; by skill and by whether something was found, None
    where answers do not say."""
    tokens_out: float | None = None
    """Of all answers together; None: there was none."""
    seconds: float | None = None

    def tokens_of(self, skill: str, finding: float | None = None) -> float:
        """Tokens of an answer, likely; of readings of which the share `finding` finds something, where that is known.

        Answers that were seen count beside the guess, which for a kind without any is as far off as for the others.
        """
        if finding is not None:
            return finding * self._mean(skill, (True,)) + (1 - finding) * self._mean(skill, (False,))
        return self._mean(skill, (True, False, None))

    def _mean(self, skill: str, founds: tuple[bool | None, ...]) -> float:
        seen = [self.by_kind.get((skill, found), (0.0, 0)) for found in founds]
        number = sum(count for _, count in seen)
        guess = _guess(skill, founds[0] if len(founds) == 1 else None) * self._off
        return (sum(tokens * count for tokens, count in seen) + guess * _GUESS_WEIGHT) / (number + _GUESS_WEIGHT)

    @property
    def _off(self) -> float:
        """By what the guesses are off for this model: answers of some are short, others reason at length."""
        guessed = sum(_guess(skill, found) * number for (skill, found), (_, number) in self.by_kind.items())
        if guessed:
            return sum(tokens * number for tokens, number in self.by_kind.values()) / guessed
        return 1.0 if self.tokens_out is None else self.tokens_out / LIKELY_TOKENS_OUT["read"]


def _guess(skill: str, found: bool | None) -> float:
    """Tokens of an answer of a model of which nothing is known."""
    if found is None or skill not in READINGS:
        return LIKELY_TOKENS_OUT.get(skill, _OTHER_TOKENS_OUT)
    return _FINDING_TOKENS_OUT if found else _MISSING_TOKENS_OUT


class Stage:
    """A reader whose requests are recorded instead of being sent."""

    def __init__(self, reader: PromptedReader, model: RehearsalModel, likely: Reader, pace: Pace) -> None:
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
        """What may be noted on the passages, as if they were of use."""
        return (await self.noted(passages, question)).model_copy(update={"found": True})

    async def noted(self, passages: Sequence[Passage], question: str) -> Note:
        """What is likely noted on the passages; not found where that is likely."""
        return await self._likely.read_many(passages, question)

    async def answering(self, question: str, notes: Sequence[Note]) -> tuple[Request, ...]:
        """The request that would have the question answered from `notes`."""
        self._model.requests.clear()
        with suppress(NotSentError):
            await self._reader.answer(question, notes)
        return tuple(self._model.requests)

    def plan(
        self,
        requests: Requests,
        *,
        more_tokens_in: int = 0,
        likely: Sequence[Request] | None = None,
        finding: int | None = None,
    ) -> Plan:
        """Calls, tokens, money and time of `requests`: what is likely, and with `at_most` what cannot be passed.

        `likely` are those of them that are likely sent; if not given, all but the widening. `more_tokens_in` are those
        that prompts may have beyond `requests`, where notes are longer than is likely. `finding` is how many of the
        likely readings find something, where that can be foreseen.
        """
        first = (*requests.reading, *requests.answering)
        likely = first if likely is None else likely
        answering_again = requests.answering if requests.widening else ()
        all_of_them = (*first, *requests.widening, *answering_again)
        usage = TokenUsage(
            tokens_in=sum(map(self._likely_tokens, likely)),
            tokens_out=round(self._likely_answers(likely, finding)),
        )
        most = TokenUsage(
            tokens_in=more_tokens_in + sum(count_prompt(self._model, request) for request in all_of_them),
            tokens_out=sum(request.max_tokens for request in all_of_them),
        )
        at_most = self._plan(len(all_of_them), most)
        return replace(self._plan(len(likely), usage), requests=requests, at_most=at_most)

    def _likely_tokens(self, request: Request) -> int:
        """An estimate in the middle: a count errs high where the model's tokenizer is not at hand, as it is for models
        that run here."""
        if self._model.spec.identity:
            return count_prompt(self._model, request)
        return sum(estimate_tokens(message.content) + _TEMPLATE_TOKENS for message in request.messages)

    def _likely_answers(self, requests: Sequence[Request], finding: int | None) -> float:
        readings = sum(_skill(request) in READINGS for request in requests)
        share = None if finding is None or not readings else min(1.0, finding / readings)
        return sum(
            min(
                request.max_tokens,
                self._pace.tokens_of(_skill(request), share if _skill(request) in READINGS else None),
            )
            for request in requests
        )

    def _plan(self, calls: int, usage: TokenUsage) -> Plan:
        return Plan(
            calls=calls,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=self._model.spec.cost_usd(usage),
            seconds=None if self._pace.seconds is None else round(self._pace.seconds * calls, 1),
        )


def _skill(request: Request) -> str:
    return request.prompt.partition("/")[0]
