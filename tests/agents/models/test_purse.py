"""A run's ledger with a purse that runs share; and several processes that spend what a job has, some of them killed."""

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from lcdoc.agents.models.budget import Budget, BudgetedModel, Ledger
from lcdoc.agents.models.errors import BudgetExceededError, ModelConfigError, RefusedRequestError
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Prices, Request, Server, TokenUsage
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.queue_time import watch_queues
from lcdoc.agents.models.stack import ModelStack
from lcdoc.memory import Library
from lcdoc.memory.spending import Spending
from lcdoc.tests.servers.chat_server import ChatServer, Reply

JOB = "job00001"
DEADLINE_S = 90.0
PRICES = Prices(input=1.0, output=4.0)
ASK = Request((Message("user", "x" * 92),), max_tokens=50)  # 100 tokens in
WORST = Spending(300 * 10**6, 150, 1)


class Inner:
    """Takes 40 tokens in and 10 out, or raises."""

    def __init__(self, prices=PRICES, error=None):
        self.spec = ModelSpec("m", 8_192, max_output_tokens=50, prices=prices)
        self.error = error
        self.asked = 0
        self.go_on = None

    def count_tokens(self, text):
        return len(text)

    async def complete(self, _request):
        self.asked += 1
        if self.go_on is not None:
            await self.go_on.wait()
        if self.error:
            raise self.error
        return Completion("yes", usage=TokenUsage(40, 0, 10), seconds=0.1)


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def ledger_of(library, budget=None, per_document=None, own=None):
    purse = library.purses.open(JOB, (budget or Budget()).caps, (per_document or Budget()).caps)
    return purse, Ledger(own, purse=purse.of_document(1))


def spent(library):
    library.close()
    return library.purses.spent(JOB)


def run(main):
    return asyncio.run(asyncio.wait_for(main, DEADLINE_S))


def test_what_a_call_took_is_entered_in_both(library):
    async def main():
        _, ledger = ledger_of(library, Budget(usd=1.0, tokens=1_000))
        await BudgetedModel(Inner(), ledger).complete(ASK)
        assert ledger.total().tokens == 50
        assert ledger.total().cost_usd == pytest.approx(80e-6)

    run(main())
    assert spent(library).spent == Spending(80 * 10**6, 50, 1)


def test_its_worst_case_is_held_back_while_it_is_under_way(library):
    async def main():
        _, ledger = ledger_of(library, Budget(usd=1.0))
        inner = Inner()
        inner.go_on = asyncio.Event()
        asked = asyncio.create_task(BudgetedModel(inner, ledger).complete(ASK))
        while not inner.asked:
            await asyncio.sleep(0.01)
        assert library.purses.spent(JOB).under_way == WORST
        inner.go_on.set()
        await asked

    run(main())
    assert spent(library).under_way == Spending()


@pytest.mark.parametrize(
    ("caps", "cap"), [({"usd": 0.0002}, "usd"), ({"tokens": 149}, "tokens"), ({"calls": 0}, "calls")]
)
def test_a_call_the_job_does_not_admit_is_not_sent(library, caps, cap):
    async def main():
        purse, ledger = ledger_of(library, Budget(**caps), own=Budget(calls=1))
        inner = Inner()
        with pytest.raises(
            BudgetExceededError, match=r"the job's cap of .* is reached.*; raise it to go on"
        ) as refused:
            await BudgetedModel(inner, ledger).complete(ASK)
        assert (refused.value.cap, ledger.exhausted, purse.reached.cap, inner.asked) == (cap, cap, cap, 0)
        # The run's own account holds nothing back for it.
        assert ledger.total().calls == 0
        held = await Ledger(Budget(calls=1)).reserve(inner.spec, TokenUsage(1, 0, 1))
        assert held.in_purse is None

    run(main())


def test_a_document_that_has_spent_its_part_does_not_stop_the_job(library):
    async def main():
        purse, ledger = ledger_of(library, Budget(tokens=10_000), Budget(calls=1))
        await BudgetedModel(Inner(), ledger).complete(ASK)
        with pytest.raises(BudgetExceededError, match="the document's cap of 1 call is reached: 1 made"):
            await BudgetedModel(Inner(), ledger).complete(ASK)
        assert purse.reached is None
        await BudgetedModel(Inner(), Ledger(purse=purse.of_document(2))).complete(ASK)

    run(main())


def test_a_run_that_has_spent_its_own_holds_nothing_back_in_the_job(library):
    async def main():
        _, ledger = ledger_of(library, Budget(tokens=10_000), own=Budget(tokens=10))
        with pytest.raises(BudgetExceededError, match="--max-tokens"):
            await BudgetedModel(Inner(), ledger).complete(ASK)

    run(main())
    assert spent(library).under_way == Spending()


def test_a_call_that_was_not_sent_is_not_charged_and_one_that_failed_is_a_call(library):
    async def main():
        _, ledger = ledger_of(library, Budget(tokens=10_000))
        for error in (ModelConfigError("m", "no"), RefusedRequestError("m", "400", usage=TokenUsage(7, 0, 0))):
            with pytest.raises(type(error)):
                await BudgetedModel(Inner(error=error), ledger).complete(ASK)

    run(main())
    account = spent(library)
    assert (account.spent, account.under_way) == (Spending(7 * 10**6, 7, 1), Spending())


def test_a_model_without_prices_is_not_asked_where_the_job_caps_money(library):
    async def main():
        _, ledger = ledger_of(library, Budget(usd=1.0))
        with pytest.raises(ModelConfigError, match="price of m is not known"):
            await BudgetedModel(Inner(prices=None), ledger).complete(ASK)

    run(main())


def test_waiting_for_the_jobs_money_is_queue_time(library):
    async def main():
        purse, first = ledger_of(library, Budget(tokens=200))
        second = Ledger(purse=purse.of_document(2))
        inner = Inner()
        inner.go_on = asyncio.Event()
        under_way = asyncio.create_task(BudgetedModel(inner, first).complete(ASK))
        while not inner.asked:
            await asyncio.sleep(0.01)

        async def queued():
            with watch_queues() as queues:
                await BudgetedModel(Inner(), second).complete(ASK)
            return queues.total_s

        waiting = asyncio.create_task(queued())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        inner.go_on.set()
        assert await waiting > 0.2
        await under_way

    run(main())


def test_the_jobs_time_ends_a_call_under_way(library):
    async def main():
        purse, ledger = ledger_of(library, Budget(seconds=0.3), own=Budget(seconds=50))
        inner = Inner()
        inner.go_on = asyncio.Event()
        with purse.at_work(1):
            assert 0 < ledger.remaining_s() <= 0.3
            with pytest.raises(BudgetExceededError, match=r"the job's cap of 0\.3 seconds is reached"):
                await BudgetedModel(inner, ledger).complete(ASK)
            # The timer of the loop may be early by a tick of its clock.
            await asyncio.sleep(0.05)
            with pytest.raises(BudgetExceededError, match="seconds"):
                await BudgetedModel(Inner(), ledger).complete(ASK)
        assert purse.reached.cap == "seconds"

    run(main())


async def spend(url, path, name):
    """Ask until the job has nothing left."""
    spec = ModelSpec("m", 8_192, server=Server(url, "m"), prices=PRICES, max_output_tokens=50)
    with Library.open(path) as library:
        purse = library.purses.open(JOB, Budget(usd=0.01).caps)
        async with ModelStack(Chosen(spec, None, ()), library) as stack:
            model = stack.for_run(Ledger(purse=purse.of_document(1)), store="off")

            async def ask():
                number = 0
                while True:
                    number += 1
                    await model.complete(Request((Message("user", f"{name} {number}"),), max_tokens=50))

            said = await asyncio.gather(*(ask() for _ in range(4)), return_exceptions=True)
        sys.stdout.write(json.dumps({"said": [str(error) for error in said], "reached": str(purse.reached)}))


def main(*arguments):
    asyncio.run(spend(*arguments))


def test_four_processes_of_which_two_are_killed_never_spend_a_cent_more(library, tmp_path):
    program = "import sys; from lcdoc.tests.agents.models.test_purse import main; main(*sys.argv[1:])"
    with ChatServer() as server, ExitStack() as stack:
        # Less than the worst case, so that what comes back counts too: 0.00016 USD of at most 0.00029.
        server.default = Reply(
            "ok", first_s=0.02, usage={"prompt_tokens": 20, "completion_tokens": 35, "total_tokens": 55}
        )
        processes = []
        for name in "abcd":
            command = [sys.executable, "-c", program, server.url, str(library.path), name]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process, after in zip(processes[:2], (12, 24), strict=True):
            server.wait_for(lambda after=after: len(server.requests) >= after, DEADLINE_S)
            process.kill()
        outputs = [json.loads(process.communicate(timeout=DEADLINE_S)[0]) for process in processes[2:]]
        while server.open_now:
            time.sleep(0.01)
    for output in outputs:
        assert all("the job's cap of 0.01 USD is reached" in said for said in output["said"])
        assert output["reached"].startswith("the job's cap of 0.01 USD is reached")
    # Whatever the server has answered, or begun to answer, is charged: also what a killed process never heard.
    billed = [PRICES.cost_usd(TokenUsage(20, 0, 35)) for request in server.requests]
    assert sum(billed) <= 0.01
    account = library.purses.spent(JOB)
    assert sum(billed) <= account.spent.usd <= 0.01
    assert account.under_way == Spending()
    assert sum(billed) > 0.01 - 10 * WORST.usd, "and nearly all of it is spent"
