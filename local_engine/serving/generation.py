"""A request for answers, from its arrival to the last byte: each step once, and what can go wrong in one place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lcdoc.local_engine.errors import EngineClosedError, EngineError, InvalidRequestError
from lcdoc.local_engine.serving.answers import Answers, Api
from lcdoc.local_engine.serving.asked import Asked, Served
from lcdoc.local_engine.serving.bodies import parsed, read_body
from lcdoc.local_engine.serving.choices import pieces
from lcdoc.local_engine.serving.connections import while_connected
from lcdoc.local_engine.serving.events import EventStream
from lcdoc.local_engine.serving.gate import Place
from lcdoc.local_engine.serving.metrics import Observed
from lcdoc.local_engine.serving.preparation import Prepared, prepare
from lcdoc.local_engine.serving.problems import ClientGoneError, Problem, closing, ended, timed_out
from lcdoc.local_engine.serving.service import Service

logger = logging.getLogger(__name__)

_OUTCOMES = {408: "timeout", 413: "too_large", 429: "busy", 503: "closing"}
_LAST_WORDS_S = 5.0
"""For telling a client of an error that may have stopped reading."""


class Generation:
    """One of the two APIs, as an ASGI application."""

    def __init__(self, service: Service, api: Api, read: Callable[[Mapping[str, Any], Served], Asked]) -> None:
        self._service = service
        self._api = api
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics, exchange = self._service.metrics, _Exchange(scope, receive, send)
        with metrics.request(self._api.whole) as observed:
            try:
                with self._service.gate.place() as place:
                    try:
                        await self._answer(exchange, place, observed)
                        observed.outcome = "ok"
                    except ClientGoneError:
                        observed.outcome = "cancelled"
                    except Exception as error:  # noqa: BLE001  (told to the client, and logged where it is a fault)
                        observed.outcome = await exchange.tell(_problem(error, draining=self._service.gate.draining))
            except Problem as problem:
                # There was no place.
                observed.outcome = await exchange.tell(problem)

    async def _answer(self, exchange: _Exchange, place: Place, observed: Observed) -> None:
        settings = self._service.settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                body = await read_body(exchange.scope, exchange.receive, settings.max_body_bytes)
                await while_connected(exchange.receive, self._write(body, exchange, place, observed))
        except TimeoutError:
            raise timed_out(settings.timeout_s) from None

    async def _write(self, body: bytes, exchange: _Exchange, place: Place, observed: Observed) -> None:
        service, engine = self._service, self._service.engine
        asked = await service.in_thread(lambda: self._read(parsed(body), service.served))
        place.add(asked.n * len(asked.prompts) - 1)
        prepared = await service.in_thread(lambda: prepare(engine, asked))
        answers = Answers(
            self._api, service.served.name, engine.tokenizer, prepared.choices, include_usage=asked.include_usage
        )
        if asked.stream:
            await self._stream(prepared, answers, exchange.events, observed)
            return
        async with aclosing(pieces(engine, prepared)) as arriving:
            async for choice, piece in arriving:
                service.metrics.piece(observed, choice.index, piece)
                answers.keep(choice, piece)
        await exchange.respond(JSONResponse(answers.whole()))

    async def _stream(self, prepared: Prepared, answers: Answers, events: EventStream, observed: Observed) -> None:
        await events.begin()
        for chunk in answers.begin():
            await events.event(chunk)
        async with events.kept_alive(), aclosing(pieces(self._service.engine, prepared)) as arriving:
            async for choice, piece in arriving:
                self._service.metrics.piece(observed, choice.index, piece)
                for chunk in answers.stream(choice, piece):
                    await events.event(chunk)
        for chunk in answers.end():
            await events.event(chunk)
        await events.done()


class _Exchange:
    """One request and the way back to its client."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.events = EventStream(send)
        self._send = send

    async def respond(self, response: Response) -> None:
        await response(self.scope, self.receive, self._send)

    async def tell(self, problem: Problem) -> str:
        """Answer with an error, or end a stream that has begun with one; what `/metrics` calls it."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                if self.events.begun:
                    await self.events.failed(problem.body)
                else:
                    await self.respond(problem.response)
        except TimeoutError:
            logger.debug("a client does not read what went wrong")
        return _OUTCOMES.get(problem.status, "invalid" if problem.status < 500 else "failed")


def _problem(error: Exception, *, draining: bool) -> Problem:
    """What a client is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidRequestError):
        return Problem(f"Invalid request: {error}.", code="invalid_value")
    if isinstance(error, EngineClosedError):
        return closing() if draining else ended()
    if isinstance(error, EngineError):
        logger.error("a request failed: %s", error)
        return Problem(f"The engine failed: {error}", status=500, code="engine_error")
    logger.error("a request failed", exc_info=error)
    return Problem("The server failed; its log says how.", status=500, code="internal_error")
