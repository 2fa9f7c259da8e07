"""Awaiting what may take for ever, such as a full disk, for as long as nobody wants it to end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


async def unless(ended: asyncio.Event, action: Coroutine[Any, Any, Result]) -> Result | None:
    """What `action` returns or raises; None where `ended` was set before: it is cancelled then."""
    acting, ending = asyncio.create_task(action), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait((acting, ending), return_when=asyncio.FIRST_COMPLETED)
        return acting.result() if acting.done() else None
    finally:
        for task in (acting, ending):
            task.cancel()
        await asyncio.gather(acting, ending, return_exceptions=True)
