"""Work in a thread that ends."""

from __future__ import annotations

import threading

import pytest

from lcdoc.local_engine.passing_threads import in_a_passing_thread


def test_the_thread_is_another_one_and_has_ended() -> None:
    thread = in_a_passing_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_an_error_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        in_a_passing_thread(lambda: 1 // 0)
