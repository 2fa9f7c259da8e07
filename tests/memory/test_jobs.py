"""Jobs in either store: what is given to whom, what is kept, what fails, and what the figures say."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

from lcdoc.memory.job_records import DocumentWork, TaskWork, UnknownJobError
from lcdoc.memory.jobs import Jobs
from lcdoc.memory.owner import Owner
from lcdoc.memory.purse_rows import keep_amounts, sign
from lcdoc.memory.spending import Spending
from lcdoc.memory.store import Store
from lcdoc.memory.usage import ModelUsage
from lcdoc.memory.work_clock import tick

SETTINGS = {"model": "offline", "questions": ["Who?", "When?"]}


@pytest.fixture
def jobs(database: Store) -> Iterator[Jobs]:
    jobs = Jobs(database)
    yield jobs
    assert jobs.problems() == []


def made(jobs: Jobs, *, documents: int = 2, tasks: int = 2, attempts: int = 3, ready: bool = True) -> str:
    """A job, with its documents prepared."""
    job = jobs.create(SETTINGS, tasks=tasks, attempts=attempts)
    jobs.add_documents(job, [f"{number}.pdf" for number in range(1, documents + 1)])
    while ready and (work := jobs.claim_document(job, "reader")):
        assert prepare(jobs, work)
    return job


def prepare(jobs: Jobs, work: DocumentWork, seconds: float = 1.0) -> bool:
    return jobs.ready(
        work, document_id=f"id{work.number}", name=f"Book {work.number}", pages=10, characters=3000, seconds=seconds
    )


def which(works: Iterable[TaskWork]) -> list[tuple[int, int]]:
    return [(work.document, work.task) for work in works]


def keep_all(jobs: Jobs, works: Iterable[TaskWork]) -> None:
    for work in works:
        assert jobs.keep(work, {"answer": f"{work.document}/{work.task}"}, seconds=1.0)


def test_a_job_from_its_making_to_its_end(jobs: Jobs) -> None:
    job = jobs.create(SETTINGS, tasks=2, name="books", out="results")
    assert jobs.get(job).state == "finished"  # there is nothing to do
    assert jobs.add_documents(job, ["a.pdf", "b.pdf", "a.pdf"]) == 2
    assert jobs.add_documents(job, ["b.pdf", "c.pdf"]) == 1
    assert jobs.get(job).state == "open"
    assert jobs.unfinished(job) == 6
    assert jobs.claim(job, "w") == []  # nothing has been read

    for expected in ("a.pdf", "b.pdf", "c.pdf"):
        work = jobs.claim_document(job, "w")
        assert work is not None
        assert (work.path, work.attempt) == (expected, 1)
        assert prepare(jobs, work)
    assert jobs.claim_document(job, "w") is None

    works = jobs.claim(job, "w", most=10)
    assert which(works) == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert (works[2].path, works[2].document_id) == ("b.pdf", "id2")
    assert jobs.claim(job, "other", most=10) == []
    keep_all(jobs, reversed(works))
    assert jobs.unfinished(job) == 0
    assert jobs.get(job).state == "finished"

    ordered = list(jobs.ordered(job))
    assert [(row.document, row.task) for row in ordered] == which(works)
    assert [row.row for row in ordered] == [{"answer": f"{work.document}/{work.task}"} for work in works]
    assert [(row.document, row.task) for row in jobs.results(job)] == which(reversed(works))
    row = ordered[2]
    assert (row.path, row.name, row.pages, row.state, row.error, row.worker, row.attempts, row.seconds) == (
        "b.pdf", "Book 2", 10, "done", "", "w", 1, 1.0,
    )  # fmt: skip


def test_results_are_followed_by_their_sequence(jobs: Jobs) -> None:
    job = made(jobs)
    first, *others = jobs.claim(job, "w", most=4)
    assert list(jobs.results(job)) == []
    keep_all(jobs, [first])
    (row,) = jobs.results(job)
    keep_all(jobs, others)
    rest = list(jobs.results(job, after=row.sequence))
    assert which(others) == [(row.document, row.task) for row in rest]
    assert [row.sequence for row in rest] == [2, 3, 4]
    assert list(jobs.results(job, after=4)) == []


def test_many_results_are_read_page_by_page(jobs: Jobs) -> None:
    job = made(jobs, documents=2, tasks=600, ready=False)
    for _ in range(2):
        jobs.document_failed(jobs.claim_document(job, "w"), "no text", 0.1)  # type: ignore[arg-type]
    assert [row.sequence for row in jobs.results(job)] == list(range(1, 1201))
    pairs = [(row.document, row.task) for row in jobs.ordered(job)]
    assert pairs == [(document, task) for document in (1, 2) for task in range(1, 601)]


def test_documents_at_hand_come_first_then_those_nobody_works_at(jobs: Jobs) -> None:
    job = made(jobs, documents=3, tasks=3)
    assert which(jobs.claim(job, "w1")) == [(1, 1)]
    assert which(jobs.claim(job, "w2")) == [(2, 1)]
    assert which(jobs.claim(job, "w1", prefer={1})) == [(1, 2)]
    assert which(jobs.claim(job, "w3", prefer=[7])) == [(3, 1)]
    # All are being worked at: the one at which the fewest are.
    assert which(jobs.claim(job, "w4")) == [(2, 2)]


def test_reading_ahead_has_its_measure(jobs: Jobs) -> None:
    job = made(jobs, documents=4, tasks=1, ready=False)
    for _ in range(2):
        work = jobs.claim_document(job, "w", ahead=2)
        assert work is not None
        prepare(jobs, work)
    assert jobs.claim_document(job, "w", ahead=2) is None
    jobs.claim(job, "w")
    assert jobs.claim_document(job, "w", ahead=2) is not None


def test_a_lost_lease_is_refused(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=1)
    (late,) = jobs.claim(job, "slow", lease_s=-1)
    (work,) = jobs.claim(job, "quick")
    assert (work.attempt, which([work])) == (2, which([late]))
    assert jobs.beat(job, "slow", [late.lease.token]) == {late.lease.token}
    assert not jobs.keep(late, {"answer": "late"}, seconds=1)
    assert list(jobs.results(job)) == []
    jobs.give_back([late])  # nothing is his to give
    assert jobs.beat(job, "quick", [work.lease.token]) == set()
    assert jobs.keep(work, {"answer": "right"}, seconds=1)
    assert not jobs.keep(work, {"answer": "again"}, seconds=1)
    assert [row.row for row in jobs.results(job)] == [{"answer": "right"}]


def test_a_document_whose_lease_was_lost_is_prepared_once(jobs: Jobs) -> None:
    job = made(jobs, documents=1, ready=False)
    late = jobs.claim_document(job, "slow", lease_s=-1)
    work = jobs.claim_document(job, "quick")
    assert late is not None
    assert work is not None
    assert not prepare(jobs, late)
    assert not jobs.document_failed(late, "broken", 1.0)
    assert prepare(jobs, work)
    assert not prepare(jobs, work)
    assert jobs.unfinished(job) == 2


def test_a_lease_that_ran_out_holds_until_somebody_wants_it(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=1)
    (work,) = jobs.claim(job, "w", lease_s=-1)
    assert jobs.beat(job, "w", [work.lease.token], lease_s=60) == set()
    assert jobs.claim(job, "other") == []
    assert jobs.keep(work, {}, seconds=1)


def test_after_a_silence_of_all_the_living_keep_what_they_hold(jobs: Jobs, database: Store) -> None:
    job = made(jobs, documents=2, tasks=1)
    one, two = jobs.register(job), jobs.register(job)
    (work,) = jobs.claim(job, one, lease_s=-1)  # it ran out while nobody could write

    def later(seconds: float) -> None:
        with database.write() as connection:
            connection.execute("UPDATE job_workers SET beat_at = beat_at - ?", (seconds,))
            connection.execute("UPDATE job_leases SET until = until - ?", (seconds,))

    later(100)
    (other,) = jobs.claim(job, two, most=9)
    assert other.document == 2
    jobs.keep(other, {}, seconds=1)
    three = jobs.register(job)
    assert jobs.claim(job, three, most=9) == []
    later(100)
    assert jobs.beat(job, two, []) == set()
    assert jobs.claim(job, two, most=9) == []
    assert jobs.beat(job, one, [work.lease.token]) == set()
    later(40)
    assert jobs.claim(job, two, most=9) == []
    later(40)
    jobs.beat(job, two, [])
    later(31)
    jobs.beat(job, two, [])
    assert which(jobs.claim(job, two, most=9)) == [(1, 1)], "who is silent after that is dead"


def test_what_a_process_that_is_gone_held_is_free_at_once(jobs: Jobs, database: Store) -> None:
    job = made(jobs, documents=3, tasks=1, ready=False)
    prepare(jobs, jobs.claim_document(job, "w"))  # type: ignore[arg-type]
    process = subprocess.run(
        [sys.executable, "-c", "from lcdoc.memory.owner import Owner; print(Owner.here())"],
        capture_output=True,
        text=True,
        check=True,
    )
    dead = jobs.register(job)
    (work,) = jobs.claim(job, dead, lease_s=3600)
    document = jobs.claim_document(job, dead, lease_s=3600)
    assert document is not None
    assert jobs.claim(job, "other") == []
    with database.write() as connection:
        connection.execute("UPDATE job_workers SET owner = ? WHERE id = ?", (process.stdout.strip(), dead))
    assert jobs.status(job).workers == ()
    (again,) = jobs.claim(job, "other")
    assert (again.task, again.attempt) == (work.task, 2)
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM job_workers").fetchone()[0] == 0
    taken = jobs.claim_document(job, "other")
    assert taken is not None
    assert (taken.number, taken.attempt) == (document.number, 2)


def test_a_worker_that_came_back_under_its_name_is_not_gone(jobs: Jobs, database: Store) -> None:
    job = made(jobs, documents=1, tasks=1)
    jobs.register(job, worker="w")
    with database.write() as connection:
        connection.execute("UPDATE job_workers SET owner = 'nobody'")
    jobs.register(job, worker="w")
    (work,) = jobs.claim(job, "w")
    assert jobs.claim(job, "other") == []
    assert jobs.keep(work, {}, seconds=1)


def test_work_given_back_was_not_begun(jobs: Jobs) -> None:
    job = made(jobs, documents=2, ready=False)
    prepare(jobs, jobs.claim_document(job, "w"))  # type: ignore[arg-type]
    works = jobs.claim(job, "w", most=2)
    document = jobs.claim_document(job, "w")
    assert document is not None
    jobs.give_back([*works, document])
    assert [work.attempt for work in jobs.claim(job, "other", most=9)] == [1, 1]
    assert jobs.claim_document(job, "other").attempt == 1  # type: ignore[union-attr]


def test_a_worker_leaves_with_honour_or_is_abandoned(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=1)
    for end, attempt in ((jobs.leave, 1), (jobs.abandon, 2), (jobs.leave, 2)):
        worker = jobs.register(job, worker="w")
        jobs.claim(job, worker)
        end(job, worker)
        assert jobs.status(job).workers == ()
        (work,) = jobs.claim(job, "other")
        assert work.attempt == attempt
        jobs.give_back([work])


def test_a_poisonous_task_fails_and_spares_its_neighbours(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=4)
    # Whoever is at task 2 dies.
    deaths = 0
    while works := jobs.claim(job, "w", most=4):
        if 2 in [work.task for work in works]:
            jobs.abandon(job, "w")
            deaths += 1
        else:
            keep_all(jobs, works)
    assert deaths == 3
    rows = {row.task: row for row in jobs.ordered(job)}
    assert [rows[task].state for task in (1, 2, 3, 4)] == ["done", "failed", "done", "done"]
    assert rows[2].row is None
    assert rows[2].error == "given up: 3 times its worker ended, or was not heard of, while at it"
    assert rows[2].attempts == 3


def test_a_last_attempt_is_made_alone(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=3, attempts=2)
    jobs.claim(job, "w", most=2)
    jobs.abandon(job, "w")
    held = jobs.claim(job, "w", most=3)
    assert which(held) == [(1, 3)]  # the others would not be alone
    assert jobs.claim(job, "w", most=3) == []
    keep_all(jobs, held)
    alone = jobs.claim(job, "w", most=3)
    assert [(work.task, work.attempt) for work in alone] == [(1, 2)]
    assert jobs.claim(job, "w", most=3) == []
    assert jobs.claim_document(job, "w") is None
    jobs.give_back(alone)
    assert which(jobs.claim(job, "w", most=3)) == [(1, 1)]
    assert which(jobs.claim(job, "other", most=3)) == [(1, 2)]


def test_a_single_attempt_is_the_only_one(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=3, attempts=1)
    assert which(jobs.claim(job, "w", most=2)) == [(1, 1), (1, 2)]
    assert which(jobs.claim(job, "w", most=2)) == [(1, 3)]
    jobs.abandon(job, "w")
    assert [row.state for row in jobs.ordered(job)] == ["failed"] * 3


def test_a_poisonous_document_fails_with_its_tasks(jobs: Jobs) -> None:
    job = made(jobs, documents=2, ready=False)
    seen = []
    while work := jobs.claim_document(job, "w"):
        seen.append((work.number, work.attempt))
        if work.number == 1:
            jobs.abandon(job, "w")
        else:
            prepare(jobs, work)
    assert seen == [(1, 1), (1, 2), (2, 1), (1, 3)]  # its last attempt is made when nothing else waits
    assert [(row.document, row.state, row.row) for row in jobs.ordered(job)] == [(1, "failed", None)] * 2
    assert jobs.status(job).documents == {"waiting": 0, "preparing": 0, "ready": 1, "failed": 1}


def test_failed_work_is_tried_again(jobs: Jobs) -> None:
    job = made(jobs, documents=2, tasks=2, ready=False)
    broken, sound = jobs.claim_document(job, "w"), jobs.claim_document(job, "w")
    assert broken is not None
    assert sound is not None
    assert jobs.document_failed(broken, "broken.pdf: not a PDF", 2.0)
    prepare(jobs, sound)
    good, bad = jobs.claim(job, "w", most=2)
    keep_all(jobs, [good])
    assert jobs.keep(bad, {"found": False}, error="the server refused", seconds=1)
    assert jobs.get(job).state == "finished"
    errors = {(row.document, row.task): row.error for row in jobs.ordered(job) if row.state == "failed"}
    assert errors == {
        (1, 1): "broken.pdf: not a PDF", (1, 2): "broken.pdf: not a PDF", (2, 2): "the server refused",
    }  # fmt: skip

    assert jobs.retry_failed(job) == 3
    assert (jobs.get(job).state, jobs.unfinished(job)) == ("open", 3)
    assert [(row.document, row.task) for row in jobs.ordered(job)] == [(2, 1)]
    prepare(jobs, jobs.claim_document(job, "w"))  # type: ignore[arg-type]
    again = jobs.claim(job, "w", most=9)
    assert sorted(which(again)) == [(1, 1), (1, 2), (2, 2)]
    assert {work.attempt for work in again} == {1}
    keep_all(jobs, again)
    assert [row.state for row in jobs.ordered(job)] == ["done"] * 4
    assert min(row.sequence for row in jobs.ordered(job) if row.document == 1) > 4  # followers are told of it
    assert jobs.retry_failed(job) == 0


def test_a_paused_job_gives_nothing_and_takes_everything(jobs: Jobs) -> None:
    job = made(jobs)
    (work,) = jobs.claim(job, "w")
    assert jobs.pause(job, "no key for the model")
    assert not jobs.pause(job, "another reason")
    assert (jobs.get(job).state, jobs.get(job).reason) == ("paused", "no key for the model")
    assert jobs.claim(job, "w") == []
    assert jobs.claim_document(job, "w") is None
    assert jobs.beat(job, "w", [work.lease.token]) == set()
    assert jobs.keep(work, {}, seconds=1)
    assert jobs.resume(job)
    assert not jobs.resume(job)
    assert (jobs.get(job).state, jobs.get(job).reason) == ("open", "")
    assert len(jobs.claim(job, "w", most=9)) == 3


def test_a_cancelled_job_has_its_work_dropped(jobs: Jobs) -> None:
    job = made(jobs)
    first, second = jobs.claim(job, "w", most=2)
    assert jobs.cancel(job)
    assert not jobs.cancel(job)
    assert not jobs.pause(job)
    assert jobs.claim(job, "w") == []
    tokens = {first.lease.token, second.lease.token}
    assert jobs.beat(job, "w", tokens) == tokens
    assert jobs.keep(first, {"answer": "paid"}, seconds=1)  # it was done, and may have been paid
    jobs.give_back([second])
    assert jobs.status(job).tasks == {"waiting": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 3}
    assert jobs.unfinished(job) == 3
    assert jobs.resume(job)
    assert [work.attempt for work in jobs.claim(job, "w", most=9)] == [1, 1, 1]


def test_documents_are_added_while_it_runs(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=1)
    keep_all(jobs, jobs.claim(job, "w"))
    assert jobs.get(job).state == "finished"
    assert jobs.add_documents(job, (f"{number}.pdf" for number in range(2500))) == 2499
    assert (jobs.get(job).state, jobs.unfinished(job)) == ("open", 2499)
    work = jobs.claim_document(job, "w")
    assert work is not None
    assert (work.number, work.path) == (2, "0.pdf")


def test_the_status_tells_what_was_done_and_what_it_cost(jobs: Jobs) -> None:
    job = made(jobs, documents=3, tasks=2, ready=False)
    worker = jobs.register(job, doing="starting")
    slow, broken = jobs.claim_document(job, worker), jobs.claim_document(job, worker)
    assert slow is not None
    assert broken is not None
    prepare(jobs, slow, seconds=7.0)
    jobs.document_failed(broken, "no text", 2.0)
    first, second = jobs.claim(job, worker, most=2)
    usage = ModelUsage(calls=3, failed_calls=1, tokens_in=900, tokens_cached=100, tokens_out=50, cost_usd=0.25)
    jobs.keep(first, {}, seconds=4.0, usage=usage)
    jobs.beat(job, worker, [second.lease.token], doing="task 2 of Book 1")
    status = jobs.status(job)
    assert status.documents == {"waiting": 1, "preparing": 0, "ready": 1, "failed": 1}
    assert status.tasks == {"waiting": 2, "running": 1, "done": 1, "failed": 2, "cancelled": 0}
    assert (status.unfinished, status.total) == (3, 6)
    assert (status.pages, status.characters, status.reading_s, status.answering_s) == (10, 3000, 9.0, 4.0)
    assert status.usage == usage
    assert [(cost.number, cost.seconds) for cost in status.slowest] == [(1, 11.0), (2, 2.0)]
    (shown,) = status.workers
    assert (shown.id, shown.pid, shown.doing) == (worker, Owner.here().pid, "task 2 of Book 1")
    assert status.tasks_per_minute > 0
    assert status.documents_per_minute > 0
    assert status.tasks_per_minute > 10  # three in a moment: it has not been at it for five minutes
    assert status.left_s is not None
    assert status.left_s == pytest.approx(60 * 3 / status.tasks_per_minute)
    assert status.as_dict()["job"]["settings"] == SETTINGS

    jobs.keep(second, {}, seconds=1.0, usage=ModelUsage(calls=1, cost_usd=None))
    status = jobs.status(job)
    assert (status.usage.cost_usd, status.known_usd, status.usage.calls) == (None, 0.25, 4)
    jobs.leave(job, worker)
    assert jobs.status(job).workers == ()


def test_the_same_settings_are_the_same_job(jobs: Jobs) -> None:
    job = jobs.create({"same": "f00d", "caps": {"usd": 1}}, tasks=1)
    found = jobs.same({"caps": {"usd": 9}, "same": "f00d"})
    assert found is not None
    assert found.id == job
    assert jobs.same({"same": "beef"}) is None
    jobs.change(job, {"same": "f00d", "caps": {"usd": 9}}, attempts=5)
    assert (jobs.get(job).settings["caps"], jobs.get(job).attempts, jobs.get(job).tasks) == ({"usd": 9}, 5, 1)
    plain = jobs.create({"a": 1, "b": 2}, tasks=1, name="plain")
    assert jobs.same({"b": 2, "a": 1}) == jobs.get(plain)
    assert [record.id for record in jobs.list()] == [plain, job]


def test_jobs_are_found_by_id_name_or_prefix(jobs: Jobs) -> None:
    job = jobs.create({}, tasks=1, name="contracts")
    assert {jobs.find(name).id for name in (job, job[:5], job[:5].upper(), "contracts")} == {job}
    with pytest.raises(UnknownJobError, match="no job 'letters'"):
        jobs.find("letters")
    jobs.create({}, tasks=1, name="contracts")
    with pytest.raises(UnknownJobError, match="may be any of the jobs"):
        jobs.find("contracts")


def test_a_removed_job_is_unknown(jobs: Jobs) -> None:
    job, other = made(jobs, documents=3), made(jobs)
    work, *_ = jobs.claim(job, "w", most=2)
    jobs.remove(job)
    assert [record.id for record in jobs.list()] == [other]
    for action in (
        lambda: jobs.keep(work, {}, seconds=1),
        lambda: jobs.claim(job, "w"),
        lambda: jobs.status(job),
        lambda: jobs.unfinished(job),
        lambda: list(jobs.results(job)),
        lambda: list(jobs.ordered(job)),
        lambda: jobs.remove(job),
    ):
        with pytest.raises(UnknownJobError, match=f"no job '{job}'"):
            action()
    assert jobs.unfinished(other) == 4


def test_a_removal_that_was_cut_off_is_brought_to_its_end(jobs: Jobs, database: Store) -> None:
    job = made(jobs)
    with database.write() as connection:
        connection.execute("UPDATE jobs SET state = 'removed'")
    assert jobs.list() == []
    assert jobs.same(SETTINGS) is None
    jobs.prune()
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM job_tasks").fetchone()[0] == 0
        assert connection.execute("SELECT count(*) FROM jobs WHERE id = ?", (job,)).fetchone()[0] == 0


def test_a_removed_job_leaves_no_purses(jobs: Jobs, database: Store) -> None:
    job, other = made(jobs), made(jobs)

    def spend(*spenders: str) -> None:
        with database.write() as connection:
            for spender in spenders:
                sign(connection, spender, "w", 1.0)
                keep_amounts(connection, (spender, 1, "w"), Spending(calls=1), Spending())
                tick(connection, spender, 1, 1.0, somebody=True)

    def spenders() -> set[str]:
        with database.read() as connection:
            tables = ("purses", "purse_owners", "work_clocks")
            return {row[0] for table in tables for row in connection.execute(f"SELECT job FROM {table}").fetchall()}

    spend(job, other)
    jobs.remove(job)
    assert spenders() == {other}
    spend(job)  # as one does that has not heard of it
    jobs.prune()
    assert spenders() == {other}


def test_names_that_are_no_text_come_back(jobs: Jobs) -> None:
    paths = ["caf\udce9.pdf", "\x1fodd.pdf", "straße.pdf"]
    job = jobs.create({}, tasks=1)
    jobs.add_documents(job, paths)
    assert jobs.add_documents(job, paths) == 0
    works = [jobs.claim_document(job, "w") for _ in paths]
    assert [work.path for work in works if work] == paths
    assert works[0] is not None
    assert works[1] is not None
    jobs.document_failed(works[0], "caf\udce9.pdf: no text\0", 0.1)
    prepare(jobs, works[1])
    (task,) = jobs.claim(job, "w")
    assert jobs.keep(task, {"name": "caf\udce9\0"}, seconds=1)
    failed, done = jobs.ordered(job)
    assert (failed.path, failed.error) == (paths[0], "caf?.pdf: no text?")
    assert done.row == {"name": "caf\udce9\0"}


def test_documents_that_jobs_have_to_do_with_are_wanted(jobs: Jobs) -> None:
    job = made(jobs, documents=3, tasks=1, attempts=2)
    keep_all(jobs, jobs.claim(job, "w"))
    jobs.claim(job, "w")
    assert jobs.documents_wanted() == {"id2", "id3"}
    jobs.abandon(job, "w")
    assert jobs.documents_wanted() == {"id2", "id3"}
    jobs.cancel(job)
    assert jobs.documents_wanted() == set()


def test_what_is_no_json_is_refused_and_the_lease_stays(jobs: Jobs) -> None:
    job = made(jobs, documents=1, tasks=1)
    (work,) = jobs.claim(job, "w")
    with pytest.raises(ValueError, match="JSON"):
        jobs.keep(work, {"confidence": math.nan}, seconds=1)
    assert jobs.keep(work, {"confidence": 5}, seconds=1)


def test_a_job_without_tasks_or_attempts_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ValueError, match="at least 1 task"):
        jobs.create({}, tasks=0)
    with pytest.raises(ValueError, match="at least 1 attempt"):
        jobs.change(jobs.create({}, tasks=1), {}, attempts=0)


def test_damage_is_told(database: Store) -> None:
    jobs = Jobs(database)
    job = made(jobs)
    keep_all(jobs, jobs.claim(job, "w", most=1))
    with database.write() as connection:
        connection.execute("UPDATE job_totals SET done = 3")
        connection.execute("UPDATE job_results SET result = ?", (b"z?",))
    damaged, miscounted = jobs.problems()
    assert f"job {job} is damaged" in damaged
    assert miscounted.endswith(f"job {job} is damaged: it tells of 3 done where 1 are")
