"""An event loop whose clock jumps to the next timer, so that tests wait hours in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Fails when there is nothing to do and no timer is set: then somebody waits who will never be woken."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1_000.0
        select = self._selector.select

        def jump(timeout: float | None) -> object:
            if timeout is None:
                raise RuntimeError("a wake-up was lost: tasks wait and nothing will happen")
            self._now += max(0.0, timeout)
            return select(0)

        self._selector.select = jump

    def time(self) -> float:
        return self._now


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on such a loop; `asyncio.get_running_loop().time` is its clock."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle_down() -> None:
    """Let every task go on until it waits for something that takes time."""
    for _ in range(20):
        await asyncio.sleep(0)
