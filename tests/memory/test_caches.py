"""Files of kept caches beside a library: entered once, dropped by age, with their documents, and when stray."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc.memory import Library
from lcdoc.memory.caches import KeptCache, digest_of
from lcdoc.tests.memory.test_library import TALE, cut, written


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def enter(library: Library, key: str, *documents: str, size: int = 100, used_at: float = 0.0) -> KeptCache:
    path = library.caches.new_path(key)
    path.write_bytes(key.encode() * size)
    cache = KeptCache(
        key=key,
        text=f"text of {key[0]}",
        model="m",
        name="local/m",
        recipe="full",
        file=path.name,
        digest=digest_of(path),
        bytes=path.stat().st_size,
        tokens=10,
        entries=5,
        seconds=1.0,
        made_at=used_at,
        used_at=used_at,
    )
    return library.caches.enter(cache, documents)


def keys(library: Library) -> list[str]:
    return sorted(one.key for one in library.caches.list())


def files(library: Library) -> list[str]:
    return sorted(path.name.split(".")[0] for path in library.caches.folder.iterdir())


def test_who_enters_second_finds_the_first(library):
    first = enter(library, "a1")
    assert enter(library, "a1").file == first.file
    assert files(library) == ["a1"]
    assert library.caches.get("a1") == first
    assert library.caches.of_text("text of a") == [first]
    assert library.caches.has_model("m")
    assert not library.caches.has_model("other")


def test_a_cache_is_prepared_once_somebody_says_so(library):
    enter(library, "a1"), enter(library, "b1")
    library.caches.prepare([library.caches.get("a1")])
    assert [library.caches.get(key).prepared for key in ("a1", "b1")] == [True, False]


def test_what_was_not_read_from_longest_goes_first(library):
    old, middle, new = (enter(library, key, used_at=at) for key, at in (("a1", 1.0), ("b1", 2.0), ("c1", 3.0)))
    library.caches.used(old)
    assert [one.key for one in library.caches.trim(2 * old.bytes)] == ["b1"]
    assert keys(library) == files(library) == ["a1", "c1"]
    assert library.caches.trim(0, but="c1")[0].key == "a1"
    assert library.caches.bytes() == new.bytes == middle.bytes


def test_a_document_takes_along_what_holds_no_other(library):
    enter(library, "a1", "one")
    enter(library, "b1", "one", "two")
    library.caches.forget("one")
    assert keys(library) == files(library) == ["b1"]
    assert [one.key for one in library.caches.of_document("two")] == ["b1"]
    library.caches.forget("two")
    assert keys(library) == files(library) == []


def test_removing_a_document_removes_its_caches(library):
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    enter(library, "a1", document.id)
    library.remove(document.id)
    assert files(library) == []


def test_prune_by_age_and_by_size(library):
    enter(library, "a1", used_at=time.time() - 10 * 86_400)
    enter(library, "b1", used_at=time.time())
    library.prune(caches_unused_days=5)
    assert keys(library) == files(library) == ["b1"]
    document = written(TALE)
    library.add(document, cut(document), recipe="r")
    enter(library, "c1", document.id, size=100_000, used_at=1.0)
    library.database.vacuum()  # all of it in the file, nothing in the log
    library.prune(max_bytes=library.caches.size_bytes() + library.path.stat().st_size - 1)
    assert keys(library) == ["b1"]
    assert [entry.id for entry in library.list()] == [document.id]


def test_verify_reads_every_file_and_prune_mends(library):
    sound, flipped, gone = (enter(library, key) for key in ("a1", "b1", "c1"))
    stray = library.caches.new_path("d1")
    stray.write_bytes(b"x")
    assert not [line for line in library.verify() if "d1" in line]  # it may be being written
    os.utime(stray, (1, 1))
    path = library.caches.path(flipped)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    library.caches.path(gone).unlink()
    problems = library.verify()
    assert len(problems) == 3
    assert all(any(name in line for line in problems) for name in (flipped.file, gone.file, stray.name))
    library.caches.remove_stray()
    assert keys(library) == ["a1", "b1"]
    assert not stray.exists()
    assert library.caches.path(sound).exists()
