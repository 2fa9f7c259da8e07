import asyncio
import threading

import pytest

from lcdoc.workflows.loop import LoopThread


@pytest.fixture
def loop() -> LoopThread:
    made = LoopThread()
    yield made
    made.close()


def test_one_loop_serves_all_calls(loop: LoopThread) -> None:
    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert loop.run(running()) is loop.run(running())


def test_errors_arrive_as_they_are(loop: LoopThread) -> None:
    async def failing() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        loop.run(failing())


def test_works_inside_a_running_loop(loop: LoopThread) -> None:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 7

    async def notebook() -> int:
        return loop.run(inner())

    assert asyncio.run(notebook()) == 7


def test_an_interruption_cancels_and_waits_for_the_cleaning_up(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = threading.Event()
    begun = threading.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    real = asyncio.run_coroutine_threadsafe

    def interrupted(coroutine, running):  # Ctrl-C, as the waiting thread would see it
        future = real(coroutine, running)
        waiting = future.result

        def result(timeout: float | None = None) -> object:
            begun.wait(5)
            future.result = waiting
            raise KeyboardInterrupt

        future.result = result
        return future

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loop.run(long())
    assert cleaned.is_set()


def test_closing_cancels_what_is_left_and_may_be_repeated() -> None:
    made = LoopThread()
    ended = threading.Event()

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def start() -> None:
        made.task = asyncio.ensure_future(background())
        await asyncio.sleep(0)

    made.run(start())
    made.close()
    made.close()
    assert ended.is_set()
