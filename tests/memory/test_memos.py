"""Small facts that are remembered for a while."""

import logging

import pytest

from lcdoc.memory import Library


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def test_a_memo_is_known_here_at_once_and_elsewhere_when_it_is_written(library):
    assert library.memos.get("mode http://a/v1") is None
    library.memos.set("mode http://a/v1", "json_schema", ttl_s=100)
    assert library.memos.get("mode http://a/v1") == "json_schema"
    library.close()
    with Library.open(library.path) as other:
        assert other.memos.get("mode http://a/v1") == "json_schema"
        assert other.memos.get("mode http://b/v1") is None


def test_a_later_memo_takes_the_place_of_an_earlier_one(library):
    library.memos.set("k", "json_schema", ttl_s=100)
    library.memos.set("k", "prompt", ttl_s=100)
    assert library.memos.get("k") == "prompt"
    library.close()
    with Library.open(library.path) as other:
        assert other.memos.get("k") == "prompt"


def test_a_memo_is_forgotten_after_its_time(library):
    library.memos.set("old", "x", ttl_s=-1)
    assert library.memos.get("old") is None
    library.memos.set("k", "y", ttl_s=100)
    library.close()
    with Library.open(library.path) as other:
        assert other.memos.get("old") is None
        with other.reading() as connection:
            assert connection.execute("SELECT key FROM memos").fetchall() == [("k",)]


def test_a_damaged_library_is_a_warning(library, caplog):
    with library.reading() as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'memos'").fetchone()
    library.close()
    data = bytearray(library.path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    library.path.write_bytes(data)
    with Library.open(library.path) as other, caplog.at_level(logging.WARNING):
        assert other.memos.get("k") is None
        assert "going on without" in caplog.text
