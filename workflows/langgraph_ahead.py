"""LangGraph, imported beside other work: that takes about as long as a search, and most of it is code no graph uses."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from functools import cache
from importlib import import_module

_MODULES = ("langgraph.graph", "langgraph.checkpoint.sqlite.aio")


def begin_import() -> None:
    """Begin, in a thread. Returns at once."""
    _imported()


def wait_for_import() -> None:
    """Import it, or wait until it is imported. Raises ImportError."""
    _imported().result()


@cache
def _imported() -> Future[None]:
    future: Future[None] = Future()

    def work() -> None:
        try:
            for module in _MODULES:
                import_module(module)
        except BaseException as error:  # noqa: BLE001 - it is raised where the import is waited for
            future.set_exception(error)
        else:
            future.set_result(None)

    # A daemon: a program that ends without a graph need not wait for it.
    threading.Thread(target=work, name="lcdoc-langgraph", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        # A forked child would inherit locks on half-imported modules, without the thread that will let go of them.
        os.register_at_fork(before=future.exception)
    return future
