"""What was answered once is not asked again: in one run, in later ones, in several processes, when some are killed."""

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model, field_validator

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.call_store import StoredModel
from lcdoc.agents.models.errors import BudgetExceededError, ServerError
from lcdoc.agents.models.fingerprint import fingerprint
from lcdoc.agents.models.model import (
    Completion,
    Message,
    ModelSpec,
    Prices,
    Request,
    Server,
    TokenLogprob,
    TokenUsage,
)
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer, Hang, Reply

SPEC = ModelSpec("mine", 8192, Server("http://127.0.0.1:1/v1", "m"), prices=Prices(1.0, 2.0))


def asking(text="hello", **fields):
    return Request((Message("system", "be brief"), Message("user", text)), prompt="read/1", **fields)


class Note(BaseModel):
    found: bool
    claim: str = ""


class Scripted:
    """A model whose answers the test makes: a function of the request, or a coroutine function."""

    def __init__(self, answer, spec=SPEC):
        self.spec = spec
        self.answer = answer
        self.asked = []

    def count_tokens(self, text):
        return len(text) // 2 + 1

    async def complete(self, request):
        self.asked.append(request)
        made = self.answer(request)
        if asyncio.iscoroutine(made):
            made = await made
        if request.on_text is not None:
            request.on_text(made.text)
        return made


def saying(text="the answer", **fields):
    return Completion(text, TokenUsage(10, 4, 3), **fields)


@pytest.fixture
def library(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


@pytest.fixture
def ledger():
    return Ledger(Budget())


def stored(ledger):
    return ledger.total().stored_calls


# What a request is known by


def specs(name="mine", **fields):
    return replace(SPEC, name=name, server=replace(SPEC.server, **fields))


CHANGES = {
    "base_url": (specs(base_url="http://127.0.0.1:2/v1"), asking()),
    "model": (specs(model="n"), asking()),
    "extra_body": (specs(extra_body=(("top_k", 1),)), asking()),
    "headers": (specs(headers=(("anthropic-beta", "x"),)), asking()),
    "temperature field": (specs(sends_temperature=False), asking()),
    "no server": (replace(SPEC, server=None), asking()),
    "text": (SPEC, asking("hello ")),
    "role": (SPEC, replace(asking(), messages=(Message("user", "be brief"), Message("user", "hello")))),
    "fewer messages": (SPEC, replace(asking(), messages=asking().messages[:1])),
    "schema": (SPEC, asking(schema=Note)),
    "schema with a description": (
        SPEC,
        asking(schema=create_model("Note", __base__=Note, claim=(str, Field(..., description="d")))),
    ),
    "max_tokens": (SPEC, asking(max_tokens=9)),
    "temperature": (SPEC, asking(temperature=0.1)),
    "top_p": (SPEC, asking(top_p=1.0)),
    "seed": (SPEC, asking(seed=0)),
    "stop": (SPEC, asking(stop=("a",))),
    "stop twice": (SPEC, asking(stop=("a", "a"))),
    "logprobs": (SPEC, asking(logprobs=True)),
    "prompt": (SPEC, replace(asking(), prompt="read/2")),
}


def test_every_change_of_what_is_asked_is_another_fingerprint():
    known = {name: fingerprint(*changed) for name, changed in CHANGES.items()} | {"": fingerprint(SPEC, asking())}
    assert len(set(known.values())) == len(CHANGES) + 1
    assert all(len(key) == 40 for key in known.values())


@pytest.mark.parametrize(
    "same",
    [
        (SPEC, asking(on_text=print)),
        (SPEC, asking(temperature=0)),
        (specs(name="an alias"), asking()),
        (specs(structured="prompt"), asking()),
        (specs(max_tokens_field="max_completion_tokens"), asking()),
        (specs(headers=(("Authorization", "Bearer sk-1"), ("X-Api-Key", "k"), ("X-Title", "lcdoc"))), asking()),
        (specs(base_url="http://user:password@127.0.0.1:1/v1"), asking()),
        (replace(SPEC, prices=None, context_window=1, profile="small"), asking()),
    ],
)
def test_what_does_not_change_the_answer_is_not_in_it(same):
    assert fingerprint(*same) == fingerprint(SPEC, asking())


def test_a_schema_made_anew_is_the_same_and_another_order_of_fields_is_not():
    one, two = (create_model("N", a=(int, ...), b=(int, ...)) for _ in range(2))
    turned = create_model("N", b=(int, ...), a=(int, ...))
    assert fingerprint(SPEC, asking(schema=one)) == fingerprint(SPEC, asking(schema=two))
    assert fingerprint(SPEC, asking(schema=one)) != fingerprint(SPEC, asking(schema=turned))


texts = st.text(st.one_of(st.characters(codec=None), st.sampled_from('",[]\\\x00')), max_size=12)
requests = st.builds(
    Request,
    messages=st.lists(st.builds(Message, st.sampled_from(["user", "system"]), texts), max_size=3).map(tuple),
    schema=st.sampled_from([None, Note]),
    max_tokens=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 0.5]),
    top_p=st.sampled_from([None, 0.5]),
    seed=st.sampled_from([None, 0, 1]),
    stop=st.lists(texts, max_size=2).map(tuple),
    logprobs=st.booleans(),
    prompt=texts,
)


@settings(max_examples=300, deadline=None)
@given(requests, requests)
def test_fingerprints_are_equal_exactly_for_equal_requests(one, other):
    assert (fingerprint(SPEC, one) == fingerprint(SPEC, other)) == (one == other)
    assert fingerprint(SPEC, one) == fingerprint(SPEC, replace(one, on_text=print))


# One process


def test_the_second_time_nothing_is_sent_or_charged(library, ledger):
    made = saying(model="m-2031", reasoning="hm", logprobs=(TokenLogprob("the", -0.5),), seconds=2.0)
    inner = Scripted(lambda _request: made)
    model = StoredModel(inner, library.calls, ledger)
    assert asyncio.run(model.complete(asking(logprobs=True))) == made
    assert stored(ledger) == 0
    heard = []
    again = asyncio.run(model.complete(asking(logprobs=True, on_text=heard.append)))
    assert again == replace(made, stored=True, seconds=0.0)
    assert heard == ["the answer"]
    assert len(inner.asked) == 1
    assert (stored(ledger), ledger.total().calls, ledger.total().tokens_in) == (1, 0, 0)
    assert (model.spec, model.count_tokens("abcd")) == (SPEC, 3)


def test_what_is_stored_outlives_the_process_and_tells_no_prompt(library, ledger):
    model = StoredModel(Scripted(lambda _request: saying()), library.calls, ledger)
    asyncio.run(model.complete(asking("a secret question")))
    library.close()
    assert b"a secret question" not in library.path.read_bytes()
    with Library.open(library.path) as other:
        later = StoredModel(Scripted(lambda _request: 1 / 0), other.calls, ledger)
        assert asyncio.run(later.complete(asking("a secret question"))).text == "the answer"


def test_a_parsed_answer_is_parsed_again(library, ledger):
    note = Note(found=True, claim="She left in März.")
    inner = Scripted(lambda _request: saying("Sure: {found: yes, ...", parsed=note))
    model = StoredModel(inner, library.calls, ledger)
    assert asyncio.run(model.complete(asking(schema=Note))).text == "Sure: {found: yes, ..."
    again = asyncio.run(model.complete(asking(schema=Note)))
    assert again.parsed_as(Note) == note
    assert json.loads(again.text) == note.model_dump()
    assert again.stored


class Aliased(BaseModel):
    found: bool = Field(alias="is_found")


def test_a_schema_with_aliases_is_read_back(library, ledger):
    inner = Scripted(lambda _request: saying("{}", parsed=Aliased(is_found=True)))
    model = StoredModel(inner, library.calls, ledger)
    for _ in range(2):
        assert asyncio.run(model.complete(asking(schema=Aliased))).parsed_as(Aliased).found
    assert len(inner.asked) == 1


class Loose(BaseModel):
    parts: dict[str, Any]


def test_an_answer_that_cannot_be_written_as_json_reaches_everybody_who_asked(library, ledger, caplog):
    made = saying("{...", parsed=Loose(parts={"a": "\ud83d"}))
    with caplog.at_level(logging.WARNING):
        results, asked = together(library, [ledger] * 2, made, made, schema=Loose)
    assert (results, asked) == ([made, made], 2)
    assert "is not kept" in caplog.text


class Shouted(BaseModel):
    """Takes lower case only, and is upper case: it cannot be read back from what it writes."""

    word: str

    @field_validator("word")
    @classmethod
    def shout(cls, word):
        if not word.islower():
            raise ValueError("lower case, please")
        return word.upper()


def test_an_answer_that_cannot_be_read_back_from_itself_is_kept_as_it_came(library, ledger):
    inner = Scripted(lambda _request: saying('{"word": "a"}', parsed=Shouted(word="a")))
    model = StoredModel(inner, library.calls, ledger)
    for _ in range(2):
        assert asyncio.run(model.complete(asking(schema=Shouted))).parsed_as(Shouted).word == "A"
    assert len(inner.asked) == 1


def test_an_answer_that_cannot_be_read_back_at_all_is_a_warning(library, ledger, caplog):
    inner = Scripted(lambda _request: saying("word: a", parsed=Shouted(word="a")))
    model = StoredModel(inner, library.calls, ledger)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert asyncio.run(model.complete(asking(schema=Shouted))).parsed_as(Shouted).word == "A"
    assert "Shouted" in caplog.text
    assert len(inner.asked) == 2


def stricter(claim):
    """`Note` as JSON schema, with a rule that JSON schema does not tell."""

    class Note(BaseModel):
        found: bool
        claim: str = ""

        @field_validator("claim")
        @classmethod
        def check(cls, value):
            if value != claim:
                raise ValueError(f"not {claim}")
            return value

    return Note


def test_an_answer_that_no_longer_validates_is_replaced(library, ledger):
    claims = iter(["old", "new"])
    inner = Scripted(lambda request: saying(parsed=request.schema(found=True, claim=next(claims))))
    model = StoredModel(inner, library.calls, ledger)
    old, new = stricter("old"), stricter("new")
    assert fingerprint(SPEC, asking(schema=old)) == fingerprint(SPEC, asking(schema=new))
    assert asyncio.run(model.complete(asking(schema=old))).parsed.claim == "old"
    assert asyncio.run(model.complete(asking(schema=new))).parsed.claim == "new"
    assert asyncio.run(model.complete(asking(schema=new))).stored
    assert len(inner.asked) == 2


@pytest.mark.parametrize(
    ("made", "schema"),
    [
        (saying("The keeper le", finish="length"), None),
        (saying("The keeper le", finish="content_filter"), None),
        (saying("  \n"), None),
        (saying('{"found": true}'), Note),
        (saying('{"found": true', parsed=Note(found=True), finish="length"), Note),
    ],
)
def test_what_did_not_validate_is_not_kept(library, ledger, made, schema):
    inner = Scripted(lambda _request: made)
    model = StoredModel(inner, library.calls, ledger)
    for _ in range(2):
        assert asyncio.run(model.complete(asking(schema=schema))) == made
    assert len(inner.asked) == 2


def test_failures_are_not_kept_and_leave_no_lease(library, ledger):
    def fail(_request):
        raise ServerError("m", "500")

    failing = StoredModel(Scripted(fail), library.calls, ledger)
    for _ in range(2):
        with pytest.raises(ServerError):
            asyncio.run(failing.complete(asking()))
    library.close()
    with library.reading() as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (0,)


def test_refresh_asks_anew_and_replaces(library, ledger):
    answers = iter(["first", "second"])
    inner = Scripted(lambda _request: saying(next(answers)))
    said = [
        asyncio.run(StoredModel(inner, library.calls, ledger, mode=mode).complete(asking())).text
        for mode in ("use", "refresh", "use")
    ]
    assert said == ["first", "second", "second"]


def test_off_neither_reads_nor_writes(library, ledger):
    answers = iter(["first", "second", "third", "fourth"])
    inner = Scripted(lambda _request: saying(next(answers)))
    said = [
        asyncio.run(StoredModel(inner, library.calls, ledger, mode=mode).complete(asking())).text
        for mode in ("off", "use", "off", "use")
    ]
    assert said == ["first", "second", "third", "second"]


def test_answers_to_a_temperature_are_kept_too(library, ledger):
    inner = Scripted(lambda _request: saying())
    model = StoredModel(inner, library.calls, ledger)
    for _ in range(2):
        asyncio.run(model.complete(asking(temperature=0.9)))
    assert len(inner.asked) == 1


class Gate:
    """Answers when it is told to; the `outcomes` are completions and exceptions, one a call."""

    def __init__(self, *outcomes):
        self.outcomes = iter(outcomes)
        self.begun = asyncio.Queue()
        self.open = asyncio.Event()

    async def __call__(self, _request):
        self.begun.put_nowait(None)
        await self.open.wait()
        outcome = next(self.outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def together(library, ledgers, *outcomes, act=None, **fields):
    """Equal requests at once, one for each ledger; `act(gate, tasks)` when the first is under way."""

    async def work():
        gate = Gate(*outcomes)
        inner = Scripted(gate)
        models = [StoredModel(inner, library.calls, ledger) for ledger in ledgers]
        tasks = [asyncio.create_task(model.complete(asking(**fields))) for model in models]
        await gate.begun.get()
        if act is None:
            gate.open.set()
        else:
            await act(gate, tasks)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert not library.calls.flights
        return results, len(inner.asked)

    return asyncio.run(work())


def test_equal_requests_at_once_are_one_call(library):
    heard = []
    ledgers = [Ledger(Budget()) for _ in range(8)]
    results, asked = together(library, ledgers, saying(seconds=3.0), on_text=heard.append)
    assert asked == 1
    assert results[0] == saying(seconds=3.0)
    assert results[1:] == [saying(stored=True)] * 7
    assert [stored(ledger) for ledger in ledgers] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert heard == ["the answer"] * 8


def test_waiting_for_an_equal_request_gives_an_answer_of_its_own(library, ledger):
    note = Note(found=True)
    (first, second), asked = together(library, [ledger] * 2, saying("{...", parsed=note), schema=Note)
    assert asked == 1
    assert first.parsed is note
    assert second.parsed == note
    assert second.parsed is not note


def test_when_the_first_fails_another_takes_over(library, ledger):
    results, asked = together(library, [ledger] * 4, ServerError("m", "500"), ServerError("m", "501"), saying())
    assert asked == 3
    assert Counter(type(result).__name__ for result in results) == {"ServerError": 2, "Completion": 2}
    assert [result.stored for result in results[2:]] == [False, True]


def test_nobody_is_cancelled_with_the_first(library, ledger):
    async def act(gate, tasks):
        tasks[0].cancel()
        await gate.begun.get()
        gate.open.set()

    results, asked = together(library, [ledger] * 3, saying(), act=act)
    assert asked == 2
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result.text for result in results[1:]] == ["the answer"] * 2


def test_the_first_goes_on_when_those_who_wait_are_cancelled(library, ledger):
    async def act(gate, tasks):
        await asyncio.sleep(0.05)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks[1:])
        gate.open.set()

    results, asked = together(library, [ledger] * 3, saying(), act=act)
    assert asked == 1
    assert results[0] == saying()
    assert all(isinstance(result, asyncio.CancelledError) for result in results[1:])


def test_the_time_of_a_run_ends_its_waiting_for_another(library, ledger):
    hurried = Ledger(Budget(seconds=0.1))

    async def act(gate, tasks):
        await asyncio.wait(tasks[1:])
        gate.open.set()

    results, asked = together(library, [ledger, hurried], saying(), act=act)
    assert asked == 1
    assert results[0] == saying()
    assert isinstance(results[1], BudgetExceededError)
    assert results[1].cap == "seconds"


def test_a_library_that_stays_locked_costs_no_answer(library, ledger, caplog):
    made = saying()
    inner = Scripted(lambda _request: made)
    with Library.open(library.path, lock_timeout_s=0.1) as other, caplog.at_level(logging.WARNING):
        model = StoredModel(inner, other.calls, ledger)
        with library.database.write():
            assert asyncio.run(model.complete(asking())) == made
        assert "is not kept" in caplog.text
        assert asyncio.run(model.complete(asking())) == made
        assert asyncio.run(model.complete(asking())).stored
    assert len(inner.asked) == 2


def test_an_answer_that_the_library_cannot_hold_is_given_all_the_same(library, ledger, caplog):
    made = Completion("the answer", TokenUsage(2**70))
    model = StoredModel(Scripted(lambda _request: made), library.calls, ledger)
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(model.complete(asking())) == made
    assert "is not kept" in caplog.text
    library.close()
    with Library.open(library.path) as other:
        assert asyncio.run(other.calls.claim(fingerprint(SPEC, asking()))) is True


def test_a_damaged_answer_is_asked_for_again(library, ledger, caplog):
    inner = Scripted(lambda _request: saying())
    model = StoredModel(inner, library.calls, ledger)
    asyncio.run(model.complete(asking()))
    with library.database.write() as connection:
        connection.execute("UPDATE calls SET answer = x'7a00'")
    with caplog.at_level(logging.WARNING):
        assert not asyncio.run(model.complete(asking())).stored
    assert "asking mine instead" in caplog.text
    assert asyncio.run(model.complete(asking())).stored


# Several processes

ASKING = """
import asyncio, json, sys
from urllib.parse import urlsplit
from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.call_store import StoredModel
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Request, Server, TokenUsage
from lcdoc.memory import Library

path, url, name, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

class Plain:
    spec = ModelSpec("mine", 8192, Server(url, "m"))

    def count_tokens(self, text):
        return len(text)

    async def complete(self, request):
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        body = json.dumps({"model": "m", "messages": messages})
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST /v1/chat/completions HTTP/1.1\\r\\nhost: x\\r\\nx-process: {name}\\r\\n"
        head += f"content-type: application/json\\r\\ncontent-length: {len(body)}\\r\\n\\r\\n"
        writer.write((head + body).encode())
        answer = await reader.readuntil(b"\\r\\n\\r\\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        (length,) = [int(line[15:]) for line in answer.lower().split(b"\\r\\n") if line.startswith(b"content-length:")]
        answer = json.loads(await reader.readexactly(length))
        writer.close()
        return Completion(answer["choices"][0]["message"]["content"], TokenUsage(1, 0, 1))

async def work():
    gate = asyncio.Semaphore(8)
    model = StoredModel(Plain(), library.calls, Ledger(Budget()))

    async def ask(number):
        async with gate:
            completion = await model.complete(Request((Message("user", f"question {number}"),)))
        assert completion.text == f"answer {number}", completion
        print(number, flush=True)

    first = "ABC".index(name) * count // 3  # each begins elsewhere, and all come by everything
    await asyncio.gather(*(ask((first + number) % count) for number in range(count)))

with Library.open(path) as library:
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(work())
"""


def processes(library, server, names, count):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ASKING, str(library.path), server.url, name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    assert all(process.stdout.readline() == "ready\n" for process in started)
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def answering(recorded, first_s=0.02):
    return Reply(recorded.key.replace("question", "answer"), first_s=first_s)


def test_processes_that_ask_the_same_make_each_call_once(library):
    with ChatServer() as server:
        server.default = answering
        for process in processes(library, server, "ABC", 40):
            answered, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert sorted(map(int, answered.split())) == list(range(40))
        assert set(server.received.values()) == {1}
        assert len(server.requests) == 40
        assert {recorded.headers["x-process"] for recorded in server.requests} == {"A", "B", "C"}
    with library.reading() as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_a_killed_process_is_stood_in_for_and_nothing_that_was_stored_is_sent_again(library):
    with ChatServer() as server:
        hung = []

        def choose(recorded):
            if recorded.headers["x-process"] == "A" and not hung and len(server.requests) > 8:
                hung.append(recorded.key)
                return Hang()
            return answering(recorded, 0.05 if not hung else 0.0)

        server.default = choose
        (killed,) = processes(library, server, "A", 40)
        server.wait_for(lambda: bool(hung))
        others = processes(library, server, "BC", 40)
        # All is stored but what A hangs on, for whose lease the others wait.
        deadline = time.monotonic() + 30
        while kept(library) < 39 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.kill()
        killed.communicate(timeout=30)
        for process in others:
            answered, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert sorted(map(int, answered.split())) == list(range(40))
        assert {recorded.headers["x-process"] for recorded in server.requests} != {"A"}
        assert server.received == {f"question {number}": 1 for number in range(40)} | {hung[0]: 2}


def kept(library):
    with library.reading() as connection:
        return connection.execute("SELECT count(*) FROM calls").fetchone()[0]


def test_a_process_killed_at_any_moment_loses_no_stored_answer(library):
    with ChatServer() as server:
        server.default = answering
        (killed,) = processes(library, server, "A", 200)
        told = [killed.stdout.readline() for _ in range(50)]
        killed.kill()
        # The last line may have been cut by the kill.
        lines = ("".join(told) + killed.communicate(timeout=30)[0]).split("\n")[:-1]
        told = {int(line) for line in lines if line}
        (process,) = processes(library, server, "B", 200)
        answered, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert sorted(map(int, answered.split())) == list(range(200))
        assert 50 <= len(told) < 200
        for number in told:
            assert server.received[f"question {number}"] == 1
        assert sum(server.received.values()) <= 200 + 8


def test_when_the_time_is_up_what_is_kept_is_given_and_nothing_else_is_begun(tmp_path):
    with Library.open(tmp_path / "library.sqlite") as library, Library.open(tmp_path / "library.sqlite") as other:
        answers = Scripted(lambda _request: Completion("hello", TokenUsage(5, 0, 1)))
        kept, late = asking("kept"), asking("late")

        async def go():
            await StoredModel(answers, library.calls, Ledger()).complete(kept)
            times_up = Ledger(Budget(seconds=0.0))
            model = StoredModel(answers, library.calls, times_up)
            assert (await model.complete(kept)).stored
            with other.reading() as connection:
                before = connection.execute("PRAGMA data_version").fetchone()
                for _ in range(3):
                    with pytest.raises(BudgetExceededError) as caught:
                        await model.complete(late)
                assert connection.execute("PRAGMA data_version").fetchone() == before, "no lease was written"
            return caught.value.cap, times_up.exhausted

        assert asyncio.run(go()) == ("seconds", "seconds")
        assert len(answers.asked) == 1
