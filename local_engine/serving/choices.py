"""A request's answers while the engine writes them: all at once, in the order their pieces come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.requests import Piece
from lcdoc.local_engine.serving.preparation import Choice, Prepared

Arrived = tuple[Choice, Piece]


async def pieces(engine: Engine, prepared: Prepared) -> AsyncGenerator[Arrived]:
    """The pieces of all choices. Closing it early cancels what is still being written. Raises EngineError.

    Of choices with the same prompt the first one reads it. The others begin when it has: they find it in the prefix
    cache.
    """
    arrived: asyncio.Queue[Arrived | Exception] = asyncio.Queue()
    read = {choice.first: asyncio.Event() for choice in prepared.choices}

    async def write(choice: Choice) -> None:
        try:
            if choice.index != choice.first:
                await read[choice.first].wait()
            constraint = prepared.constraint
            answer = engine.generate(choice.prompt, choice.sampling, schema=constraint.schema, regex=constraint.regex)
            async with aclosing(answer):
                async for piece in answer:
                    read[choice.first].set()
                    arrived.put_nowait((choice, piece))
        except Exception as error:  # noqa: BLE001  (raised again by the reader of the queue)
            arrived.put_nowait(error)

    writing = [asyncio.create_task(write(choice)) for choice in prepared.choices]
    open_choices = len(writing)
    try:
        while open_choices:
            each = await arrived.get()
            if isinstance(each, Exception):
                raise each
            open_choices -= each[1].finish is not None
            yield each
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
