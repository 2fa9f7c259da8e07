"""What a job may spend over several processes: caps that hold, whoever is killed, waits or gives up."""

import asyncio
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.memory import Library
from lcdoc.memory.database import Database
from lcdoc.memory.journal import Journal
from lcdoc.memory.owner import Owner
from lcdoc.memory.purses import JobPurse, Purses
from lcdoc.memory.spending import UNITS_PER_USD, CapReachedError, Caps, Spending

JOB = "job00001"
DEADLINE_S = 30.0


@pytest.fixture(params=["sqlite", "postgres"])
def library(request, tmp_path, monkeypatch):
    """A library whose purses lie in its own file, or on a server that machines share."""
    monkeypatch.delenv("LCDOC_SHARED", raising=False)
    if request.param == "postgres":
        monkeypatch.setenv("LCDOC_SHARED", request.getfixturevalue("shared"))
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def settled(library):
    """The purses, when all that was said is kept."""
    library._store_journal.flush()
    return library.purses


def tokens(amount):
    return Spending(amount, amount, 1)


def run(main):
    return asyncio.run(asyncio.wait_for(main, DEADLINE_S))


async def waits(task):
    """Whether it still does, after as long as an answer takes."""
    await asyncio.sleep(0.1)
    return not task.done()


def test_two_stay_within_a_cap_together_and_one_waits_for_the_others_call(library):
    async def main():
        one = library.purses.open(JOB, Caps(tokens=100)).of_document(1)
        two = library.purses.open(JOB, Caps(tokens=100)).of_document(2)
        first = await one.reserve(tokens(70))
        second = asyncio.create_task(two.reserve(tokens(50)))
        assert await waits(second)
        one.settle(first, tokens(20))
        two.settle(await second, tokens(50))
        assert settled(library).spent(JOB).under_way == Spending()
        with pytest.raises(
            CapReachedError, match="the job's cap of 100 tokens is reached: 70 used, this call may take 3"
        ):
            await one.reserve(tokens(31))
        one.release(await one.reserve(tokens(30)))

    run(main())
    assert settled(library).spent(JOB).spent == Spending(70, 70, 2)


def test_a_cap_on_money_holds_to_the_smallest_unit(library):
    async def main():
        purse = library.purses.open(JOB, Caps(cost=3)).of_document(1)
        for _ in range(3):
            purse.settle(await purse.reserve(Spending(cost=1)), Spending(cost=1))
        with pytest.raises(CapReachedError) as refused:
            await purse.reserve(Spending(cost=1))
        assert (refused.value.whose, refused.value.cap) == ("job", "usd")
        assert purse.caps_usd

    run(main())


def test_calls_under_way_are_calls(library):
    async def main():
        purse = library.purses.open(JOB, Caps(calls=2))
        other = library.purses.open(JOB, Caps(calls=2)).of_document(1)
        await purse.of_document(1).reserve(tokens(1))
        held = await other.reserve(tokens(1))
        with pytest.raises(CapReachedError, match="cap of 2 calls is reached: 0 made, 2 under way"):
            await other.reserve(tokens(1))
        other.release(held)
        await other.reserve(tokens(1))

    run(main())


@pytest.mark.parametrize("caps", [Caps(cost=0), Caps(tokens=0), Caps(calls=0)])
def test_a_cap_of_0_admits_nothing(library, caps):
    async def main():
        with pytest.raises(CapReachedError):
            await library.purses.open(JOB, caps).of_document(1).reserve(Spending(calls=1))

    run(main())


def test_a_documents_cap_is_its_own_and_stops_no_job(library):
    async def main():
        purse = library.purses.open(JOB, Caps(tokens=100), Caps(tokens=10))
        one, two = purse.of_document(1), purse.of_document(2)
        one.settle(await one.reserve(tokens(10)), tokens(10))
        with pytest.raises(CapReachedError, match="the document's cap of 10 tokens") as refused:
            await one.reserve(tokens(1))
        assert refused.value.whose == "document"
        assert purse.reached is None
        two.settle(await two.reserve(tokens(10)), tokens(10))
        with pytest.raises(CapReachedError) as refused:
            await library.purses.open(JOB, Caps(tokens=20)).of_document(3).reserve(tokens(1))
        assert refused.value.whose == "job"

    run(main())
    assert settled(library).spent(JOB).spent.tokens == 20
    assert library.purses.spent_on(JOB, 1).spent.tokens == 10


def test_a_call_that_one_account_refuses_is_held_back_in_none(library):
    async def main():
        purse = library.purses.open(JOB, Caps(tokens=100), Caps(tokens=10))
        with pytest.raises(CapReachedError):
            await purse.of_document(1).reserve(tokens(11))
        await purse.of_document(2).reserve(tokens(10))
        assert library.purses.spent(JOB).under_way == tokens(10)

    run(main())


def test_the_jobs_cap_is_what_it_stops_with(library):
    async def main():
        purse = library.purses.open(JOB, Caps(tokens=10))
        assert purse.reached is None
        with pytest.raises(CapReachedError):
            await purse.of_document(1).reserve(tokens(11))
        assert str(purse.reached).startswith("the job's cap of 10 tokens is reached")

    run(main())


def test_without_caps_nothing_is_kept(library):
    purse = library.purses.open(JOB, Caps())
    with purse.at_work(1):
        purse.beat()
    settled(library)
    assert purse.of_document(1) is None
    with library._store.read() as connection:
        assert [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES] == [0, 0, 0]


TABLES = ("purses", "purse_owners", "work_clocks")


def test_what_was_spent_counts_when_it_is_opened_again(library):
    async def main(caps, spend):
        purse = library.purses.open(JOB, caps, caps).of_document(1)
        purse.settle(await purse.reserve(tokens(spend)), tokens(spend))

    for spend in (30, 30, 39):
        run(main(Caps(tokens=100), spend))
    with pytest.raises(CapReachedError, match="99 used"):
        run(main(Caps(tokens=100), 2))
    run(main(Caps(tokens=101), 2))  # a cap that was raised


def test_a_purse_goes_on_with_documents_it_has_put_away(library):
    async def main():
        purse = library.purses.open(JOB, Caps(), Caps(tokens=10))
        for _ in range(5):
            with purse.at_work(1):
                one = purse.of_document(1)
                one.settle(await one.reserve(tokens(2)), tokens(2))
        with pytest.raises(CapReachedError, match="10 used"):
            await purse.of_document(1).reserve(tokens(1))
        assert not purse._documents

    run(main())


def test_what_was_put_away_does_not_write_over_what_is_at_hand(library):
    async def main():
        one = library.purses.open(JOB, Caps(), Caps(tokens=100)).of_document(1)
        for spent in range(20):
            one.settle(await one.reserve(tokens(5)), tokens(1))
            held = await one.reserve(tokens(5))
            await asyncio.to_thread(library._store_journal.flush)
            account = library.purses.spent_on(JOB, 1)
            assert (account.spent.tokens, account.under_way.tokens) == (spent + 1, 5)
            one.release(held)

    run(main())


def test_nobody_who_was_cancelled_holds_anything_back(library):
    async def main():
        one = library.purses.open(JOB, Caps(tokens=100)).of_document(1)
        two = library.purses.open(JOB, Caps(tokens=100)).of_document(1)
        first = await one.reserve(tokens(100))
        waiting = asyncio.create_task(two.reserve(tokens(60)))
        at_once = asyncio.create_task(two.reserve(tokens(60)))
        await asyncio.sleep(0)
        at_once.cancel()
        assert await waits(waiting)
        waiting.cancel()
        await asyncio.gather(waiting, at_once, return_exceptions=True)
        one.release(first)
        await one.reserve(tokens(100))

    run(main())


def test_a_reservation_ends_once(library):
    async def main():
        purse = library.purses.open(JOB, Caps(tokens=100)).of_document(1)
        number = await purse.reserve(tokens(1))
        purse.settle(number, tokens(1))
        with pytest.raises(ValueError, match="settled or released already"):
            purse.release(number)

    run(main())


def test_a_reservation_made_in_a_transaction_that_was_undone_is_made_once(library):
    async def main():
        purse = library.purses.open(JOB, Caps(tokens=100)).of_document(1)
        journal = library._store_journal
        wrong = [asyncio.create_task(journal.write(lambda _: 1 // 0)) for _ in range(3)]
        numbers = await asyncio.gather(*(purse.reserve(tokens(10)) for _ in range(5)))
        await asyncio.gather(*wrong, return_exceptions=True)
        assert library.purses.spent(JOB).under_way == Spending(50, 50, 5)
        for number in numbers:
            purse.settle(number, tokens(1))
        purse.release(await purse.reserve(tokens(95)))

    run(main())
    assert settled(library).spent(JOB).spent == Spending(5, 5, 5)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_caps_hold_whatever_happens(tmp_path_factory, seed):
    rng = random.Random(seed)
    spent = Spending()

    async def one(purse, number):
        nonlocal spent
        worst = tokens(rng.randrange(1, 40))
        held = await purse.of_document(number).reserve(worst)
        try:
            await asyncio.sleep(rng.choice([0, 0.001, 0.01]))
        finally:
            if rng.random() < 0.2:
                purse.of_document(number).release(held)
            else:
                took = tokens(rng.randrange(worst.tokens + 1))
                purse.of_document(number).settle(held, took)
                spent += took

    async def main(library):
        purses = [library.purses.open(JOB, Caps(tokens=700, calls=60), Caps(tokens=300)) for _ in range(3)]
        tasks = []
        for _ in range(70):
            tasks.append(asyncio.create_task(one(rng.choice(purses), rng.randrange(1, 4))))
            if rng.random() < 0.2:
                await asyncio.sleep(0.001)
                rng.choice(tasks).cancel()
        said = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, CapReachedError | asyncio.CancelledError | None) for error in said)

    with Library.open(tmp_path_factory.mktemp("purses") / "library.sqlite") as library:
        run(main(library))
        account = settled(library).spent(JOB)
        assert account.spent == spent
        assert account.under_way == Spending()
        assert spent.tokens <= 700
        assert spent.calls <= 60
        documents = [library.purses.spent_on(JOB, number).spent for number in (1, 2, 3)]
        assert max(document.tokens for document in documents) <= 300
        assert sum(document.tokens for document in documents) == spent.tokens


HOLDS = """
import asyncio, sys
from lcdoc.memory import Library
from lcdoc.memory.spending import Caps, Spending

async def main(path, job):
    with Library.open(path) as library:
        purse = library.purses.open(job, Caps(tokens=100, seconds=1_000), Caps(tokens=90))
        with purse.at_work(1):
            one = purse.of_document(1)
            one.settle(await one.reserve(Spending(5, 5, 1)), Spending(5, 5, 1))
            await one.reserve(Spending(60, 60, 1))
            print("held", flush=True)
            await asyncio.sleep(1_000)

asyncio.run(main(*sys.argv[1:]))
"""


def killed_while_it_holds(library):
    command = [sys.executable, "-c", HOLDS, str(library.path), JOB]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_process_held_back_counts_as_spent(library):
    before = library.purses.open(JOB, Caps(tokens=100))
    killed_while_it_holds(library)

    async def main():
        # It began before the other, so it has not tidied up after it.
        with pytest.raises(CapReachedError, match="65 used, this call may take 36"):
            await before.of_document(1).reserve(tokens(36))
        after = library.purses.open(JOB, Caps(tokens=100), Caps(tokens=90))
        with pytest.raises(CapReachedError, match="65 used, this call may take 36"):
            await after.of_document(2).reserve(tokens(36))
        with pytest.raises(CapReachedError, match=r"the document's .* 65 used"):
            await after.of_document(1).reserve(tokens(26))
        after.of_document(1).settle(await after.of_document(1).reserve(tokens(25)), tokens(25))

    run(main())
    assert settled(library).spent(JOB).spent == Spending(90, 90, 3)
    with library._store.read() as connection:
        owners = [owner for (owner,) in connection.execute("SELECT owner FROM purses WHERE document = 0")]
    assert "" in owners, "the dead are added up"
    assert not [owner for owner in owners if owner and Owner.from_text(owner).is_gone()]


def test_a_process_elsewhere_is_waited_for_until_it_has_long_been_silent(library):
    elsewhere = str(replace(Owner.here(), host="another"))
    purse = library.purses.open(JOB, Caps(tokens=100)).of_document(1)

    def last_heard(seconds_ago):
        with library._store.write() as connection:
            now = library._store.now(connection)
            connection.execute(
                "INSERT INTO purses (job, document, owner, held_tokens) VALUES (?, 0, ?, 60)"
                " ON CONFLICT (job, document, owner) DO NOTHING",
                (JOB, elsewhere),
            )
            connection.execute(
                "INSERT INTO purse_owners VALUES (?, ?, ?)"
                " ON CONFLICT (job, owner) DO UPDATE SET beat_at = excluded.beat_at",
                (JOB, elsewhere, now - seconds_ago),
            )

    async def main():
        last_heard(30)
        waiting = asyncio.create_task(purse.reserve(tokens(50)))
        assert await waits(waiting)
        last_heard(200)
        with pytest.raises(CapReachedError, match="60 used"):
            await waiting

    run(main())


class Timed(Database):
    """A database whose clock is set by hand."""

    time = 1_000.0

    def now(self, _connection):
        return self.time


@pytest.fixture
def timed(tmp_path):
    with Timed(tmp_path / "library.sqlite") as database:
        yield database


class Hands:
    """Two workers and a clock."""

    def __init__(self, database):
        self.database, self.journal = database, Journal(database)
        self.purses = Purses(database, self.journal)
        self.one, self.two = (self.purses.open(JOB, Caps(seconds=100.0), Caps(seconds=50.0)) for _ in range(2))

    def passes(self, seconds, *beating):
        self.journal.flush()
        self.database.time += seconds
        for purse in beating:
            purse.beat()
        self.journal.flush()

    @property
    def seconds(self):
        self.journal.flush()
        return self.purses.spent(JOB).seconds


def test_time_at_work_counts_once_and_time_in_which_nobody_works_does_not(timed):
    hands = Hands(timed)
    hands.passes(500)
    with hands.one.at_work(1):
        hands.passes(10)
        with hands.two.at_work(2):
            hands.passes(10)
        hands.passes(5)
        assert hands.purses.spent_on(JOB, 2).seconds == 10
    assert hands.seconds == 25
    hands.passes(30, hands.one, hands.two)  # it is paused, and the workers live on
    assert hands.seconds == 25
    with hands.two.at_work(1):
        hands.passes(3)
    assert hands.seconds == 28
    assert hands.purses.spent_on(JOB, 1).seconds == 28
    hands.journal.close()


def test_a_clock_that_is_set_does_little_harm(timed):
    hands = Hands(timed)
    with hands.one.at_work(1):
        hands.passes(10, hands.one)
        hands.passes(-1_000_000, hands.one)
        hands.passes(10, hands.one)
        assert hands.seconds == 20
        hands.passes(+1_000_000, hands.one)
        hands.passes(10, hands.one)
    assert 30 <= hands.seconds <= 90
    hands.journal.close()


def test_the_time_that_is_left_and_the_one_that_is_up(timed):
    hands = Hands(timed)
    with hands.one.at_work(1):
        hands.passes(40, hands.one)
        assert hands.one.of_document(1).remaining_s() == pytest.approx(10, abs=1)
        assert hands.one.of_document(2).remaining_s() == pytest.approx(50, abs=1)
        hands.passes(20, hands.one)
        purse = hands.one.of_document(1)
        assert purse.remaining_s() == 0
        assert str(purse.time_is_up()) == "the document's cap of 50 seconds is reached"
        assert hands.one.reached is None
        hands.passes(45, hands.one)
        assert hands.one.reached.cap == "seconds"
        assert str(hands.one.of_document(2).time_is_up()) == "the job's cap of 100 seconds is reached"
    hands.journal.close()


def test_one_that_is_killed_at_work_is_at_work_no_longer(library):
    killed_while_it_holds(library)
    with library._store.write() as connection:
        connection.execute("UPDATE work_clocks SET counted_to = counted_to - 30")
    purse = library.purses.open(JOB, Caps(seconds=1_000))
    with purse.at_work(1):
        pass
    assert settled(library).spent(JOB).seconds < 20


def test_a_refusal_can_be_sent_to_another_process():
    error = CapReachedError("job", "usd", "the job's cap of 1.00 USD is reached")
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert (again.whose, again.cap, str(again)) == ("job", "usd", str(error))
    assert Spending(cost=UNITS_PER_USD // 4).usd == 0.25
    assert not Caps()
    assert Caps(tokens=0)


def test_a_store_that_cannot_be_written_holds_nothing_back(tmp_path):
    with Database(tmp_path / "library.sqlite", lock_timeout_s=0.1) as database:
        journal = Journal(database)
        job_purse = JobPurse(database, journal, JOB, Caps(tokens=10), Caps())
        purse = job_purse.of_document(1)

        async def main():
            blocker = Database(tmp_path / "library.sqlite")
            with blocker.write(), pytest.raises(Exception, match="another process is writing"):
                await purse.reserve(tokens(10))
            blocker.close()
            await purse.reserve(tokens(10))

        run(main())
        journal.close()


def test_what_was_spent_and_could_not_be_written_is_not_forgotten(tmp_path):
    with Database(tmp_path / "library.sqlite", lock_timeout_s=0.1) as database:
        journal = Journal(database)
        purse = JobPurse(database, journal, JOB, Caps(), Caps(tokens=10)).of_document(1)

        async def main():
            number = await purse.reserve(tokens(6))
            blocker = Database(tmp_path / "library.sqlite")
            with blocker.write():
                purse.settle(number, tokens(6))
                await asyncio.to_thread(journal.flush)
            blocker.close()
            with pytest.raises(CapReachedError, match="6 used"):
                await purse.reserve(tokens(5))
            purse.settle(await purse.reserve(tokens(4)), tokens(4))

        run(main())
        journal.close()
