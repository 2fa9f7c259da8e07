"""Keys never show: not in a repr, a pickle, a message, a log."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import traceback
from urllib.parse import quote, quote_plus

import pytest

from lcdoc.agents.models.secrets import MARKER, Key, install_log_scrubbing, scrub

SECRET = 'zq-live/7Hs+4k"Qd w9'


def test_a_key_gives_itself_away_only_when_revealed():
    key = Key(SECRET, source="SOME_VARIABLE")
    assert key.reveal() == SECRET
    assert key.source == "SOME_VARIABLE"
    shown = [repr(key), str(key), f"{key}", f"{key:>40}", f"{key!r}", "%s %r" % (key, key), repr({"k": [key]})]  # noqa: UP031
    assert not [text for text in shown if "7Hs" in text]
    assert not hasattr(key, "__dict__")


def test_a_key_is_not_written_down():
    key = Key(SECRET)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(key, protocol=protocol)
    with pytest.raises(TypeError):
        json.dumps({"key": key})


def test_a_key_in_a_dataclass_survives_copying():
    @dataclasses.dataclass(frozen=True)
    class Chosen:
        key: Key

    chosen = Chosen(Key(SECRET))
    assert copy.deepcopy(chosen).key is chosen.key
    assert dataclasses.asdict(chosen)["key"] is chosen.key
    assert "7Hs" not in repr(chosen)


def test_a_traceback_with_locals_does_not_show_a_key():
    def fail(key):
        local = key
        raise RuntimeError(f"no luck with {local}")

    try:
        fail(Key(SECRET))
    except RuntimeError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "no luck with" in shown
    assert "7Hs" not in shown.replace(repr(SECRET), "")


def test_keys_are_equal_by_value():
    assert Key(SECRET) == Key(f" {SECRET}\n")
    assert Key(SECRET) != Key("another-key-77")
    assert hash(Key(SECRET)) == hash(Key(SECRET))
    assert Key(SECRET) != SECRET


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_key_is_none(blank):
    with pytest.raises(ValueError, match="blank"):
        Key(blank)


def test_every_spelling_of_a_registered_key_is_replaced():
    Key(SECRET)
    quoted = quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET)
    for spelling in (SECRET, *quoted, json.dumps(SECRET), repr(SECRET)):
        assert "7Hs" not in scrub(f"sent {spelling} to it")
    assert scrub(f"sent {SECRET} to it") == f"sent {MARKER} to it"


def test_of_two_keys_the_longer_leaves_nothing_behind():
    Key("lcdoc-test-abcd-0001")
    Key("lcdoc-test-abcd-0001-and-more")
    assert scrub("x lcdoc-test-abcd-0001-and-more y") == f"x {MARKER} y"


@pytest.mark.parametrize("value", ["none", "x", "EMPTY", "ollama", "lm-studio", "not-needed", "sk-no-key-required"])
def test_placeholders_do_not_blank_ordinary_text(value):
    Key(value)
    text = "There is none of it; x marks an EMPTY box. The ollama and lm-studio programs say it is not-needed."
    assert scrub(text) == text


def test_a_short_key_is_replaced_as_a_word_only():
    Key("horsebat")
    assert scrub("the key horsebat is wrong") == f"the key {MARKER} is wrong"
    assert scrub("horsebattery staple") == "horsebattery staple"


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: sk-proj-abcDEF123456. You can find",
        "Incorrect API key provided: sk-ab***********************wxyz.",
        "Authorization: Bearer abcdefghijkl",
        "{'authorization': 'Bearer abcdefghijkl'}",
        "[(b'authorization', b'Bearer abcdefghijkl')]",
        "curl -H 'Bearer eyJhbGciOi.J9wxyz.abcdefghijkl'",
        "GET https://host/v1/models?key=abcdefghijkl&alt=sse",
        "https://host/v1?api_key=abcdefghijkl",
        "x-api-key: abcdefghijkl",
        "gsk_abcdefghijklmnopqrst was refused",
    ],
)
def test_what_looks_like_a_key_is_replaced(text):
    shown = scrub(text)
    assert MARKER in shown
    assert "abcdefghijkl" not in shown
    assert "wxyz" not in shown
    assert "abcDEF" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "The bearer of this letter was a risk-taking, desk-bound man.",
        "A task-specific model; the sk-learn package; key = value",
        "Bearer bonds are payable to the bearer.",
        "What is the key to success? Monkey business.",
        "the token of our esteem: basic authorization was refused",
    ],
)
def test_prose_stays_as_it_is(text):
    assert scrub(text) == text


def test_scrubbing_long_text_takes_no_more_than_linear_time():
    # With a quadratic pattern this does not end within the life of the test.
    assert scrub("sk-" * 200_000).startswith("sk-sk-")
    assert len(scrub("Bearer " * 200_000)) == 7 * 200_000
    assert len(scrub("api_key" * 100_000 + "?" * 100_000)) == 800_000


@pytest.fixture
def root_log():
    """What a handler of the root logger prints, at DEBUG; record factory and loggers as before afterwards."""
    factory = logging.getLogRecordFactory()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    install_log_scrubbing()
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


def test_no_logger_of_any_library_prints_a_key(root_log):
    key = Key(SECRET)
    logging.getLogger("some.library.child").debug("headers: %s", {"authorization": f"Bearer {key.reveal()}"})
    logging.getLogger("another").info(f"url https://h/?key={quote(SECRET, safe='')}")
    logging.getLogger("third").warning("%(a)s", {"a": SECRET})
    logging.getLogger("plain").info("%d pages in %.1f s", 3, 0.5)
    shown = root_log.getvalue()
    assert "7Hs" not in shown
    assert shown.count(MARKER) == 3
    assert "plain 3 pages in 0.5 s" in shown


def test_tracebacks_in_the_log_hold_no_key(root_log):
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        logging.getLogger("lib").exception("it failed")
    shown = root_log.getvalue()
    assert "it failed" in shown
    assert "ValueError: refused" in shown
    assert "7Hs" not in shown


def test_a_record_that_cannot_be_formatted_holds_no_key_either(root_log):
    logging.getLogger("lib").error("%d and %s", SECRET)  # noqa: PLE1206
    assert "7Hs" not in root_log.getvalue()
    assert MARKER in root_log.getvalue()


def test_installing_twice_is_as_once(root_log):
    before = logging.getLogRecordFactory()
    install_log_scrubbing()
    assert logging.getLogRecordFactory() is before
