"""The outermost layer: what was answered once is not asked again.

An answer is kept the moment it validated, before anybody sees it, so that a run that is killed repeats no call that was
answered. Equal requests under way at once, in this process or in others, are one call; the others wait for its answer.
Answers to a temperature above zero are kept too, with a seed or without: that is what makes such runs resumable.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ValidationError

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.fingerprint import fingerprint, public_url
from lcdoc.agents.models.model import ChatModel, Completion, Finish, ModelSpec, Request, TokenLogprob, TokenUsage
from lcdoc.memory.calls import Call, Calls
from lcdoc.memory.errors import LibraryAwayError, LibraryError

_logger = logging.getLogger(__name__)

StoreMode = Literal["use", "refresh", "off"]
"""`use` what is kept; ask anew and keep the answer in its place (`refresh`); neither read nor write (`off`)."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 0.5


class StoredModel:
    """Answers from the call store where it can, else asks `inner` and keeps the answer.

    A stored completion has `stored` set and shows the usage of the call that was made for it, which is not charged
    again. Only outputs that validated are kept: with a schema, the parsed answer as JSON; without one, a text that came
    to its end. A library that cannot be read or written is a warning: the answer still comes, unstored. But where its
    shared part is away nothing is asked: what others have paid for is there, and what is paid now is to be kept there.
    """

    def __init__(self, inner: ChatModel, calls: Calls, ledger: Ledger, *, mode: StoreMode = "use") -> None:
        self._inner = inner
        self._calls = calls
        self._ledger = ledger
        self._mode = mode

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer, from the store where it can. Raises what the model below raises, but nobody fails by another's call;
        BudgetExceededError when the run's time is up, or is while it waits for one, LibraryAwayError."""
        if self._mode == "off":
            return await self._inner.complete(request)
        key = fingerprint(self.spec, request)
        while True:
            outdated: float | None = None
            if self._mode == "use" and (call := await self._kept(key)) is not None:
                if (completion := _restored(call, request)) is not None:
                    return self._given(completion, request)
                outdated = call.created_at
            if self._ledger.remaining_s() == 0:
                # Before the lease is written: hundreds that are too late would hold up the end of the run.
                raise self._ledger.out_of_time(self.spec)
            flight = self._calls.flights.get(self._flight_key(key))
            if flight is None:
                return await self._lead(key, request, outdated)
            async with self._in_time():
                # Shielded, since who waits here may be cancelled, and the call is not theirs.
                led: Completion | None = await asyncio.shield(flight)
            if led is not None and (completion := _again(led, request)) is not None:
                return self._given(completion, request)

    async def _lead(self, key: str, request: Request, outdated: float | None) -> Completion:
        """Make the call that equal requests of this process wait for. They take over when it fails."""
        flight: asyncio.Future[Completion | None] = asyncio.get_running_loop().create_future()
        self._calls.flights[self._flight_key(key)] = flight
        completion: Completion | None = None
        try:
            completion = await (
                self._shared(key, request, outdated) if self._mode == "use" else self._ask(key, request)
            )
            return completion
        finally:
            del self._calls.flights[self._flight_key(key)]
            flight.set_result(completion)

    def _flight_key(self, key: str) -> object:
        # The loop is in it for a forked child: nobody will ever answer the futures it inherits.
        return key, self._mode, asyncio.get_running_loop()

    async def _shared(self, key: str, request: Request, outdated: float | None) -> Completion:
        """Ask under a lease, or wait for the process that has it."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                claim = await self._claim(key, outdated)
                if claim is True:
                    return await self._ask(key, request)
                if isinstance(claim, Call):
                    if (completion := _restored(claim, request)) is not None:
                        return self._given(completion, request)
                    outdated = claim.created_at
                    continue
                async with self._in_time():
                    while await self._is_claimed(key):
                        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                        pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
        finally:
            # Also when the claim itself was cancelled: it may be done all the same, and this comes after it.
            self._calls.release(key)

    async def _ask(self, key: str, request: Request) -> Completion:
        completion = await self._inner.complete(request)
        try:
            if (text := _keepable(completion, request)) is not None:
                await self._calls.put(key, self._call(completion, text, request))
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is paid for and must reach who asked
            _logger.warning("%s; an answer of %s is not kept and would be paid again", error, self.spec.name)
        return completion

    def _call(self, completion: Completion, text: str, request: Request) -> Call:
        server, usage, logprobs = self.spec.server, completion.usage, completion.logprobs
        return Call(
            text=text,
            model=self.spec.name if server is None else server.model,
            base_url="" if server is None else public_url(server.base_url),
            prompt=request.prompt,
            tokens_in=usage.tokens_in,
            tokens_cached=usage.tokens_cached,
            tokens_out=usage.tokens_out,
            estimated=usage.estimated,
            finish=completion.finish,
            served_by=completion.model,
            reasoning=completion.reasoning,
            logprobs=None if logprobs is None else tuple((token.token, token.logprob) for token in logprobs),
        )

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Others' calls are waited for within the run's own time."""
        deadline = asyncio.timeout(self._ledger.remaining_s())
        try:
            async with deadline:
                yield
        except TimeoutError as error:
            if deadline.expired():
                raise self._ledger.out_of_time(self.spec) from error
            raise

    async def _kept(self, key: str) -> Call | None:
        try:
            return await asyncio.to_thread(self._calls.get, key) if self._calls.is_far else self._calls.get(key)
        except LibraryAwayError:
            raise
        except LibraryError as error:
            _logger.warning("%s; asking %s instead", error, self.spec.name)
            return None

    async def _claim(self, key: str, outdated: float | None) -> Call | bool:
        try:
            return await self._calls.claim(key, other_than=outdated)
        except LibraryAwayError:
            raise
        except LibraryError as error:
            _logger.warning("%s; asking %s without telling other processes", error, self.spec.name)
            return True

    async def _is_claimed(self, key: str) -> bool:
        try:
            if self._calls.is_far:
                return await asyncio.to_thread(self._calls.is_claimed, key)
            return self._calls.is_claimed(key)
        except LibraryError:
            return False  # the claim that follows says what is wrong

    def _given(self, completion: Completion, request: Request) -> Completion:
        self._ledger.count_stored(self.spec)
        if request.on_text is not None:
            request.on_text(completion.text)
        return completion


def _keepable(completion: Completion, request: Request) -> str | None:
    """The text to keep, from which the same answer can be had again; None where it is not to be kept."""
    if request.schema is None:
        return completion.text if completion.finish == "stop" and completion.text.strip() else None
    if completion.parsed is None or completion.finish in ("length", "content_filter"):
        return None
    try:
        canonical = completion.parsed.model_dump_json(by_alias=True, round_trip=True)
    except ValueError:
        canonical = ""  # such as half a surrogate pair in a field of any type
    # The raw text may have needed mending, so it is the second choice.
    for text in (canonical, completion.text):
        if _parsed(request.schema, text) is not None:
            return text
    _logger.warning("%s is not valid as it writes itself; an answer is not kept", request.schema.__name__)
    return None


def _parsed(schema: type[BaseModel], text: str) -> BaseModel | None:
    try:
        return schema.model_validate_json(text)
    except ValidationError:
        return None


def _restored(call: Call, request: Request) -> Completion | None:
    """The completion a stored call stands for; None where it does not fit the request's schema (any more)."""
    parsed = None if request.schema is None else _parsed(request.schema, call.text)
    if request.schema is not None and parsed is None:
        return None
    finish: dict[str, Finish] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
    return Completion(
        text=call.text,
        usage=TokenUsage(call.tokens_in, call.tokens_cached, call.tokens_out, call.estimated),
        finish=finish.get(call.finish, "other"),
        parsed=parsed,
        stored=True,
        logprobs=None if call.logprobs is None else tuple(TokenLogprob(*pair) for pair in call.logprobs),
        model=call.served_by,
        reasoning=call.reasoning,
    )


def _again(completion: Completion, request: Request) -> Completion | None:
    """What another request was answered, for an equal one. None where its schema, equal as JSON, does not take it."""
    parsed = None
    if request.schema is not None:
        text = _keepable(completion, request)
        if text is None or (parsed := _parsed(request.schema, text)) is None:
            return None
        completion = replace(completion, text=text)
    return replace(completion, parsed=parsed, stored=True, seconds=0.0)
