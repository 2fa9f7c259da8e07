"""Whose failure it is, and how it is waited for."""

import errno
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from lcdoc.agents.models.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConnectionFailedError,
    ContextOverflowError,
    InvalidOutputError,
    ModelConfigError,
    RetriesExhaustedError,
    ServerError,
)
from lcdoc.agents.span_reader.weights import SpanReaderError
from lcdoc.documents import CorruptFileError, NotFoundError
from lcdoc.jobs import patience
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.faults import IN_A_ROW, Fault, Streak, UndoneError, fault_of
from lcdoc.jobs.growth import Growth
from lcdoc.jobs.heart import Heart
from lcdoc.memory.errors import LibraryAccessError, LibraryBusyError, LibraryCorruptError, UnknownDocumentError
from lcdoc.retrieval.embedders import EmbedderError
from lcdoc.retrieval.vectors import VectorStoreError

LIBRARY = Path("library.sqlite")
DEADLINE_S = 30


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reach", "kind"),
    [
        (CorruptFileError("a.pdf", "is torn"), "task", ""),
        (NotFoundError("a.pdf", "no such file"), "task", "NotFoundError"),
        (ContextOverflowError("m", "too long"), "task", ""),
        (BudgetExceededError("m", "the document's cap is reached", cap="usd"), "task", ""),
        (UnknownDocumentError(LIBRARY, "no document"), "task", ""),
        (InvalidOutputError("m", "no JSON"), "task", "InvalidOutputError"),
        (caused(RetriesExhaustedError("m", "500"), ServerError("m", "500")), "task", "ServerError"),
        (caused(RetriesExhaustedError("m", "refused"), ConnectionFailedError("m", "refused")), "server", None),
        (AuthenticationError("m", "wrong key"), "job", None),
        (ModelConfigError("m", "no key"), "job", None),
        (EmbedderError("minilm", "is not installed", "install it"), "job", None),
        (SpanReaderError("reader.safetensors: its weights are missing; reinstall lcdoc"), "job", None),
        (JobError("the schema does not do"), "job", None),
        (LibraryCorruptError(LIBRARY, "damaged"), "job", None),
        (LibraryAccessError(LIBRARY, "the disk is full"), "place", None),
        (LibraryBusyError(LIBRARY, "locked"), "place", None),
        (caused(VectorStoreError("cannot be written"), OSError(errno.ENOSPC, "no space")), "place", None),
        (OSError(errno.ENOSPC, "no space"), "place", None),
        (UndoneError(Fault("server", "away")), "server", ""),
    ],
)
def test_an_error_says_whose_fault_it_is(error: Exception, reach: str, kind: str | None) -> None:
    fault = fault_of(error)
    assert fault.reach == reach
    assert kind is None or fault.kind == kind
    assert "\n" not in fault.reason


def test_what_no_user_can_mend_is_called_a_bug() -> None:
    fault = fault_of(KeyError("x"))
    assert fault == Fault("task", "a bug in lcdoc: KeyError: 'x'", "KeyError")


def test_a_streak_is_of_one_kind_and_begins_anew_when_it_was_told() -> None:
    streak, one, other, own = Streak(), Fault("task", "a", "A"), Fault("task", "b", "B"), Fault("task", "c")
    said = [streak.add(fault) for fault in [one] * (IN_A_ROW - 1) + [own, other, one]]
    assert not any(said)
    said = [streak.add(one) for _ in range(IN_A_ROW)]
    assert [bool(line) for line in said] == [False] * (IN_A_ROW - 2) + [True, False]
    assert said[-2] == f"{IN_A_ROW} failures of one kind in a row, the last: a"


def test_a_worker_without_a_loop_waits_for_room_on_the_disk_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.001)
    full = iter([True, True, True])
    said: list[str] = []
    alive: list[int] = []

    def action() -> str:
        if next(full, False):
            raise LibraryAccessError(LIBRARY, "the disk is full", "free some space")
        return "done"

    assert patience.outlast(action, said.append, meanwhile=lambda: alive.append(1)) == "done"
    assert said == ["library library.sqlite: the disk is full; free some space; waiting until that is mended"]
    assert len(alive) == 3
    with pytest.raises(LibraryCorruptError):
        patience.outlast(lambda: _raise(LibraryCorruptError(LIBRARY, "damaged")), said.append, meanwhile=lambda: None)


def _raise(error: Exception) -> None:
    raise error


def test_the_heart_goes_on_while_nothing_can_be_written_and_tells_of_each_loss_once() -> None:
    beats: list[set[str]] = []
    lost: list[str] = []
    enough = threading.Event()

    def beat(tokens: Collection[str]) -> set[str]:
        beats.append(set(tokens))
        if len(beats) == 2:
            raise LibraryAccessError(LIBRARY, "the disk is full")
        if len(beats) == 6:
            enough.set()
        return {"a", "gone before"} if len(beats) >= 3 else set()

    with Heart(beat, on_lost=lost.append, beat_s=0.01) as heart:
        heart.hold("a")
        heart.hold("b")
        assert enough.wait(DEADLINE_S)
    assert lost == ["a"]
    assert beats[2] == {"a", "b"}
    assert beats[4] == {"b"}


def test_the_heart_stops_where_nothing_moves_any_more() -> None:
    stuck = threading.Event()
    beats: list[int] = []

    def beat(_tokens: Collection[str]) -> set[str]:
        beats.append(1)
        return set()

    with Heart(beat, on_lost=lambda _: None, on_stuck=stuck.set, beat_s=0.01, stuck_s=0.05):
        assert stuck.wait(DEADLINE_S)
        count = len(beats)
        assert not threading.Event().wait(0.05)
        assert len(beats) == count


def test_growth_is_measured_from_where_a_process_has_settled() -> None:
    settling = Growth(most_bytes=50 << 20, settled=2)
    assert [settling(), settling(), settling()] == [False, False, False]
    more = bytearray(100 << 20)
    assert settling()
    del more
