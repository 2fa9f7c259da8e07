"""A shift over a real job table, with deeds that dawdle and fail as a test says."""

import asyncio
import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.jobs import shift as shift_module
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.faults import IN_A_ROW, Fault, UndoneError
from lcdoc.jobs.results import Result, ResultDocument, ResultTask
from lcdoc.jobs.shift import OVERDUE, Shift
from lcdoc.jobs.work import Done, Prepared
from lcdoc.memory import Library
from lcdoc.memory.job_records import TaskWork
from lcdoc.memory.usage import ModelUsage
from lcdoc.workflows.answer import Usage

DEADLINE_S = 30


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


class Deeds:
    """Does nothing, well; `on_prepare` and `on_answer` may dawdle or raise."""

    def __init__(self, library: Library, documents: int, tasks: int) -> None:
        self.jobs = library.jobs
        self.job_id = self.jobs.create({"same": "this"}, tasks=tasks)
        self.jobs.add_documents(self.job_id, [f"/folder/{number}.txt" for number in range(1, documents + 1)])
        self.on_prepare: Callable[[str], None] = lambda _path: None
        self.on_answer: Callable[[TaskWork], object] = lambda _work: None
        self.done: Counter[tuple[int, int]] = Counter()
        self.most_at_once = self.under_way = 0

    def prepare(self, path: str) -> Prepared:
        self.on_prepare(path)
        return Prepared(f"id of {path}", Path(path).name, pages=1, characters=10, seconds=0.0)

    async def answer(self, work: TaskWork) -> Done:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            fault = self.on_answer(work)
            if asyncio.iscoroutine(fault):
                fault = await fault
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        self.done[work.document, work.task] += 1
        document = ResultDocument(number=work.document, path=work.path)
        task = ResultTask(number=work.task, id=str(work.task), kind="ask")
        usage = Usage(calls=1, tokens_in=7, cost_usd=0.5)
        row = Result(job=self.job_id, document=document, task=task, found=True, answer="yes", usage=usage)
        if isinstance(fault, Fault):
            return Done(row.model_copy(update={"error": fault.reason}), fault)
        return Done(row)

    @property
    def states(self) -> dict[str, int]:
        return {state: count for state, count in self.jobs.status(self.job_id).tasks.items() if count}


def work(library: Library, deeds: Deeds, **options: object) -> Ending:
    """A shift from beginning to end."""
    shift = Shift(library, deeds, worker_id=library.jobs.register(deeds.job_id), **{"beat_s": 0.05, **options})

    async def run() -> Ending:
        async with asyncio.timeout(DEADLINE_S):
            return await shift.run()

    return asyncio.run(run())


def test_everything_is_done_once_and_so_many_at_a_time_as_were_asked_for(library: Library) -> None:
    deeds = Deeds(library, documents=6, tasks=3)

    async def dawdle() -> None:
        await asyncio.sleep(0.01)

    deeds.on_answer = lambda _work: dawdle()
    assert work(library, deeds, at_once=4, alternating=False) is Ending.FINISHED
    assert deeds.states == {"done": 18}
    assert set(deeds.done.values()) == {1}
    assert deeds.most_at_once == 4
    status = deeds.jobs.status(deeds.job_id)
    assert status.workers == ()
    assert status.usage == ModelUsage(calls=18, tokens_in=18 * 7, cost_usd=18 * 0.5)


def test_offline_one_thing_is_done_at_a_time(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift_module, "_SOON_S", 0.001)
    deeds = Deeds(library, documents=4, tasks=2)
    begun: list[str] = []
    busy = threading.Lock()

    def prepare(path: str) -> None:
        assert busy.acquire(blocking=False)
        begun.append(path)
        time.sleep(0.02)
        busy.release()

    def answer(work: TaskWork) -> None:
        assert not busy.locked()
        begun.append(work.path)

    deeds.on_prepare, deeds.on_answer = prepare, answer
    assert work(library, deeds) is Ending.FINISHED
    assert deeds.most_at_once == 1
    # A document at hand is done with before the next one is prepared.
    assert begun == [f"/folder/{number}.txt" for number in range(1, 5) for _ in range(3)]


@pytest.mark.parametrize("alternating", [True, False])
def test_documents_that_hang_do_not_keep_the_others_waiting(library: Library, alternating: bool) -> None:
    deeds = Deeds(library, documents=8, tasks=2)
    others = 2 * (8 - OVERDUE)
    all_others = threading.Event()

    def hang(path: str) -> None:
        if int(Path(path).stem) <= OVERDUE:
            assert all_others.wait(DEADLINE_S)

    def count(_work: TaskWork) -> None:
        if sum(deeds.done.values()) == others - 1:
            all_others.set()

    deeds.on_prepare, deeds.on_answer = hang, count
    assert work(library, deeds, alternating=alternating, patience_s=0.05) is Ending.FINISHED
    assert deeds.states == {"done": 16}


def test_a_document_that_cannot_be_read_fails_its_tasks_and_no_others(library: Library) -> None:
    deeds = Deeds(library, documents=3, tasks=2)

    def refuse(path: str) -> None:
        if path.endswith("2.txt"):
            raise UndoneError(Fault("task", "2.txt is no document"))

    deeds.on_prepare = refuse
    assert work(library, deeds) is Ending.FINISHED
    assert deeds.states == {"done": 4, "failed": 2}
    failed = [kept for kept in deeds.jobs.ordered(deeds.job_id) if kept.state == "failed"]
    assert [(kept.document, kept.error) for kept in failed] == [(2, "2.txt is no document")] * 2


def test_failures_of_one_kind_in_a_row_pause_the_job_with_the_reason(library: Library) -> None:
    deeds = Deeds(library, documents=2 * IN_A_ROW, tasks=1)
    deeds.on_answer = lambda _work: Fault("task", "the server answered 500", kind="ServerError")
    assert work(library, deeds) is Ending.STOPPED
    record = deeds.jobs.get(deeds.job_id)
    assert record.state == "paused"
    assert record.reason == f"{IN_A_ROW} failures of one kind in a row, the last: the server answered 500"
    assert deeds.states == {"failed": IN_A_ROW, "waiting": IN_A_ROW}


def test_failures_that_are_each_documents_own_do_not_pause_it(library: Library) -> None:
    deeds = Deeds(library, documents=2 * IN_A_ROW, tasks=1)
    deeds.on_answer = lambda _work: Fault("task", "longer than the window")
    assert work(library, deeds) is Ending.FINISHED
    assert deeds.states == {"failed": 2 * IN_A_ROW}


def test_a_success_in_between_begins_the_count_anew(library: Library) -> None:
    deeds = Deeds(library, documents=3 * IN_A_ROW, tasks=1)
    broken = Fault("task", "the server answered 500", kind="ServerError")
    deeds.on_answer = lambda work: broken if work.document % IN_A_ROW else None
    assert work(library, deeds) is Ending.FINISHED


def test_what_is_wrong_for_all_stops_the_job_and_fails_nothing(library: Library) -> None:
    deeds = Deeds(library, documents=3, tasks=2)
    said: list[str] = []

    def refuse(work: TaskWork) -> None:
        if work.document == 2:
            raise UndoneError(Fault("job", "the key is missing"))

    deeds.on_answer = refuse
    assert work(library, deeds, say=said.append) is Ending.STOPPED
    assert deeds.jobs.get(deeds.job_id).reason == "the key is missing"
    assert said == ["the key is missing"]
    assert deeds.states == {"done": 2, "waiting": 4}
    deeds.jobs.resume(deeds.job_id)
    (again,) = deeds.jobs.claim(deeds.job_id, "another")
    assert again.attempt == 1


def test_while_nothing_can_be_written_work_is_held_and_told_once(library: Library) -> None:
    deeds = Deeds(library, documents=2, tasks=1)
    said: list[str] = []
    trouble = iter([True, True])

    def refuse(_work: TaskWork) -> None:
        if next(trouble, False):
            raise UndoneError(Fault("place", "the disk is full"))

    deeds.on_answer = refuse
    assert work(library, deeds, say=said.append) is Ending.FINISHED
    assert said == ["the disk is full; what is done is held, and tried again", "going on"]
    assert deeds.states == {"done": 2}


def test_a_server_that_never_answered_stops_the_job_one_that_did_is_waited_for(library: Library) -> None:
    deeds = Deeds(library, documents=3, tasks=1)
    away = iter([True, False, True, False])

    def refuse(_work: TaskWork) -> None:
        if next(away, False):
            raise UndoneError(Fault("server", "no connection"))

    deeds.on_answer = refuse
    assert work(library, deeds) is Ending.STOPPED
    assert deeds.jobs.get(deeds.job_id).reason == "no connection"
    deeds.jobs.resume(deeds.job_id)
    assert work(library, deeds) is Ending.FINISHED
    assert deeds.states == {"done": 3}


def test_work_whose_lease_is_lost_is_left_off(library: Library) -> None:
    deeds = Deeds(library, documents=1, tasks=2)
    cancelled: list[TaskWork] = []

    async def hang(work: TaskWork) -> None:
        deeds.jobs.abandon(deeds.job_id, work.lease.worker)
        try:
            await asyncio.sleep(DEADLINE_S)
        except asyncio.CancelledError:
            cancelled.append(work)
            raise

    deeds.on_answer = lambda work: hang(work) if work.attempt == 1 and work.task == 1 else None
    assert work(library, deeds) is Ending.FINISHED
    assert [work.task for work in cancelled] == [1]
    assert deeds.states == {"done": 2}


def test_a_lease_that_ends_with_its_result_is_not_lost(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    deeds = Deeds(library, documents=IN_A_ROW, tasks=1)
    keep = library.jobs.keep

    def keep_slowly(*given: object, **more: object) -> bool:
        kept = keep(*given, **more)  # type: ignore[arg-type]
        time.sleep(0.1)  # several beats, which find the row without its lease
        return kept

    monkeypatch.setattr(library.jobs, "keep", keep_slowly)
    deeds.on_answer = lambda _work: Fault("task", "the server answered 500", kind="ServerError")
    assert work(library, deeds, beat_s=0.01) is Ending.STOPPED
    assert "failures of one kind in a row" in deeds.jobs.get(deeds.job_id).reason


def test_a_shift_that_is_interrupted_gives_back_what_it_holds(library: Library) -> None:
    deeds = Deeds(library, documents=2, tasks=2)
    shift = Shift(library, deeds, worker_id="one", at_once=3, alternating=False)

    async def hang(work: TaskWork) -> None:
        if deeds.under_way == 3:
            shift.end(Ending.INTERRUPTED)
        await asyncio.sleep(DEADLINE_S)

    deeds.on_answer = hang

    async def run() -> Ending:
        async with asyncio.timeout(DEADLINE_S):
            return await shift.run()

    assert asyncio.run(run()) is Ending.INTERRUPTED
    assert deeds.states == {"waiting": 4}
    assert [again.attempt for again in deeds.jobs.claim(deeds.job_id, "two", most=4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("full", [False, True])
def test_one_that_waits_is_interrupted_all_the_same(
    library: Library, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """Be it for the last answers of a job that was paused, or for room on the disk."""
    deeds = Deeds(library, documents=1, tasks=1)
    shift = Shift(library, deeds, worker_id="one")

    async def hang() -> None:
        shift.end(Ending.STOPPED)
        asyncio.get_running_loop().call_later(0.1, shift.end, Ending.INTERRUPTED)
        await asyncio.sleep(DEADLINE_S)

    def no_room(*_given: object, **_more: object) -> None:
        threading.Timer(0.1, shift.end, [Ending.INTERRUPTED]).start()
        raise OSError(errno.ENOSPC, "no space left")

    deeds.on_answer = lambda _work: hang()
    if full:
        monkeypatch.setattr(deeds.jobs, "claim", no_room)

    async def run() -> Ending:
        async with asyncio.timeout(DEADLINE_S):
            return await shift.run()

    assert asyncio.run(run()) is Ending.INTERRUPTED
    assert deeds.states == {"waiting": 1}


def test_one_that_has_grown_ends_after_what_it_has_begun(library: Library) -> None:
    deeds = Deeds(library, documents=4, tasks=1)
    answers = iter([False, True])
    assert work(library, deeds, grown=lambda: next(answers)) is Ending.GROWN
    assert deeds.states.get("running") is None
    assert deeds.states["waiting"] >= 2
    assert work(library, deeds) is Ending.FINISHED


def test_one_that_stays_does_what_is_added_later(library: Library) -> None:
    deeds = Deeds(library, documents=1, tasks=1)
    shift = Shift(library, deeds, worker_id="one", stay=True)

    def answer(work: TaskWork) -> None:
        if work.document == 2:
            shift.end(Ending.STOPPED)

    deeds.on_answer = answer

    async def run() -> Ending:
        async with asyncio.timeout(DEADLINE_S):
            running = asyncio.create_task(shift.run())
            while deeds.states != {"done": 1}:
                await asyncio.sleep(0.01)
            deeds.jobs.add_documents(deeds.job_id, ["/folder/later.txt"])
            return await running

    assert asyncio.run(run()) is Ending.STOPPED
    assert deeds.states == {"done": 2}


def test_a_mistake_of_ours_is_not_swallowed(library: Library) -> None:
    deeds = Deeds(library, documents=1, tasks=1)

    def wrong(_work: TaskWork) -> None:
        raise TypeError("not this")

    deeds.on_answer = wrong
    with pytest.raises(TypeError, match="not this"):
        work(library, deeds)
    assert deeds.states == {"waiting": 1}


def test_cancelling_the_job_ends_what_is_under_way(library: Library) -> None:
    deeds = Deeds(library, documents=1, tasks=1)

    async def hang() -> None:
        deeds.jobs.cancel(deeds.job_id)
        await asyncio.sleep(DEADLINE_S)

    deeds.on_answer = lambda _work: hang()
    assert work(library, deeds) is Ending.STOPPED
    assert deeds.states == {"cancelled": 1}
