"""Arithmetic in a thread that ends.

OpenMP keeps a team of threads for every thread that ever computed with it. While there are more of them than cores,
they sleep between operations instead of waiting awake, and waking them for each of a pass's hundreds of operations was
measured to cost a fifth of decoding. So only the engine's thread keeps a team: what is computed before, when a model is
loaded, is computed in a thread that takes its team with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_a_passing_thread(function: Callable[[], Result]) -> Result:
    """What `function` returns or raises, called in a new thread that has ended when this returns."""
    called: Future[Result] = Future()

    def call() -> None:
        try:
            called.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            called.set_exception(error)

    thread = threading.Thread(target=call, name="lcdoc-loading", daemon=True)
    thread.start()
    result = called.result()
    thread.join()
    return result
