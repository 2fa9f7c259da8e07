"""Evaluations in the library: kept item by item, gone on with after a kill, told apart by their settings."""

import asyncio
import multiprocessing
from pathlib import Path

import pytest

from lcdoc.memory import Library
from lcdoc.memory.evaluations import EvaluationUnderWayError, UnknownEvaluationError

SETTINGS = {"set": "squad", "way": "retrieve"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "library.sqlite"


def begin_and_keep(path: Path, name: str) -> None:
    library = Library.open(path)
    asyncio.run(library.evaluations.keep(library.evaluations.begin(SETTINGS, 2), name, {"figures": {"f1": 1.0}}))
    # No close: as a process that is killed leaves it.


def test_what_a_killed_process_left_is_gone_on_with(path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=begin_and_keep, args=(path, "first"))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    with Library.open(path) as library:
        evaluation_id = library.evaluations.begin(SETTINGS, 2)
        assert list(library.evaluations.items(evaluation_id)) == ["first"]
        asyncio.run(library.evaluations.keep(evaluation_id, "second", {"figures": {}}))
        library.evaluations.finish(evaluation_id)
        (found,) = library.evaluations.list()
        assert (found.answered, found.questions, found.settings) == (2, 2, SETTINGS)
        assert found.finished_at is not None
        assert library.evaluations.find(evaluation_id[:5]) == found


def test_one_that_ended_or_has_other_settings_is_begun_anew(path: Path) -> None:
    with Library.open(path) as library:
        first = library.evaluations.begin(SETTINGS, 1)
        assert library.evaluations.begin(dict(reversed(SETTINGS.items())), 1) == first
        assert library.evaluations.begin(SETTINGS | {"way": "chain"}, 1) != first
        library.evaluations.finish(first)
        assert library.evaluations.begin(SETTINGS, 1) != first


def test_two_libraries_are_not_at_one_evaluation_at_once(path: Path) -> None:
    with Library.open(path) as library, Library.open(path) as other:
        library.evaluations.begin(SETTINGS, 1)
        with pytest.raises(EvaluationUnderWayError, match="is under way, in process"):
            other.evaluations.begin(SETTINGS, 1)


def test_one_is_removed_with_its_items_unless_another_is_at_it(path: Path) -> None:
    with Library.open(path) as library, Library.open(path) as other:
        ended, begun = (library.evaluations.begin(SETTINGS | {"seed": seed}, 1) for seed in (0, 1))
        for evaluation_id in (ended, begun):
            asyncio.run(library.evaluations.keep(evaluation_id, "first", {"figures": {}}))
        library.evaluations.finish(ended)
        other.evaluations.remove(ended)
        with pytest.raises(EvaluationUnderWayError, match=f"evaluation {begun} is under way"):
            other.evaluations.remove(begun)
        assert [one.id for one in library.evaluations.list()] == [begun]
        assert library.evaluations.items(ended) == {}
        assert list(library.evaluations.items(begun)) == ["first"]


def test_an_unknown_id_is_one_line(path: Path) -> None:
    with Library.open(path) as library, pytest.raises(UnknownEvaluationError, match="no evaluation 'abc'"):
        library.evaluations.find("abc")


def test_a_damaged_item_is_told(path: Path) -> None:
    with Library.open(path) as library:
        evaluation_id = library.evaluations.begin(SETTINGS, 1)
        asyncio.run(library.evaluations.keep(evaluation_id, "first", {}))
        assert library.verify() == []
        with library.database.write() as connection:
            connection.execute("UPDATE evaluation_items SET item = x'00'")
        (problem,) = library.verify()
        assert f"evaluation {evaluation_id} is damaged" in problem
