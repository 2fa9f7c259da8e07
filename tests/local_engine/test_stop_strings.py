from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from lcdoc.local_engine.stop_strings import StopStrings

letters = st.text("abc\n", max_size=30)
pieces = st.lists(st.text("abc\n", max_size=6), max_size=12)
stop_lists = st.lists(st.text("abc\n", min_size=1, max_size=5), max_size=4)


def first_stop(text: str, stops: list[str]) -> int:
    return min((place for place in map(text.find, stops) if place >= 0), default=-1)


@given(pieces, stop_lists)
@example(["ab", "c", "x"], ["abcd", "bc"])
@example(["ab", "c"], ["abcd", "bc"])
@example(["aab"], ["ab", "aab"])
def test_any_chunking_shows_what_is_before_the_first_stop(chunks: list[str], stops: list[str]) -> None:
    text = "".join(chunks)
    watch = StopStrings(stops)
    shown = ""
    for number, chunk in enumerate(chunks):
        new, stopped = watch.push(chunk)
        shown += new
        assert stopped == watch.stopped
        # Nothing is held back that cannot begin a stop string, and nothing shown that does.
        so_far = "".join(chunks[: number + 1])
        if not stopped:
            assert so_far.startswith(shown)
            assert shown == so_far or any(stop.startswith(so_far[len(shown) :][: len(stop)]) for stop in stops)
    shown += watch.flush()
    place = first_stop(text, stops)
    assert watch.stopped == (place >= 0)
    assert shown == (text if place < 0 else text[:place])


@given(pieces)
def test_without_stop_strings_everything_is_shown_at_once(chunks: list[str]) -> None:
    watch = StopStrings(())
    assert [watch.push(chunk) for chunk in chunks] == [(chunk, False) for chunk in chunks]
    assert watch.flush() == ""


def test_nothing_follows_a_stop() -> None:
    watch = StopStrings(["END"])
    assert watch.push("one E") == ("one ", False)
    assert watch.push("ND two") == ("", True)
    assert watch.push("three") == ("", True)
    assert watch.flush() == ""


def test_a_beginning_that_goes_on_otherwise_is_shown() -> None:
    watch = StopStrings(["\n\nQ:"])
    assert watch.push("a\n") == ("a", False)
    assert watch.push("\n") == ("", False)
    assert watch.push("b") == ("\n\nb", False)
    assert watch.push("\n\nQ") == ("", False)
    assert watch.flush() == "\n\nQ"
    assert not watch.stopped
