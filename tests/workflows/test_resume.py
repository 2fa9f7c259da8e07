"""Runs that were cut off: killed, interrupted, ended by a cap. Going on with them repeats nothing that was kept."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.benchmarks.resume import comparable, killed_and_resumed, prepare, undisturbed
from lcdoc.benchmarks.shapes import QUESTION, SHAPES, readers_for, shelve
from lcdoc.memory import Library
from lcdoc.memory.errors import UnknownDocumentError
from lcdoc.memory.runs import RunEndedError, RunUnderWayError, UnknownRunError
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Event, NoteTaken, Resumed, Spent, Started
from lcdoc.workflows.workspace import Workspace

PIECES = 24


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        running.default = Truthful()
        yield running


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        shelve(opened, tmp_path, PIECES)
        yield opened


class Asking:
    """Runs of the shapes over the library's document, through the server."""

    def __init__(self, library: Library, server: ChatServer) -> None:
        self.library = library
        self.server = server
        self.events: list[Event] = []

    def __call__(self, shape: str, *, resumed: str | None = None, budget: Budget | None = None, **model: Any) -> Answer:
        return asyncio.run(self.answered(shape, resumed=resumed, budget=budget, **model))

    async def answered(
        self, shape: str, *, resumed: str | None = None, budget: Budget | None = None, **model: Any
    ) -> Answer:
        self.events.clear()
        stack, readers = readers_for(self.library, self.server.url, at_once=4, **model)
        async with stack:
            (entry,) = self.library.list()
            workflow = SHAPES[shape](self.library, None, readers)
            record = self.library.runs.find(resumed) if resumed else None
            stream = workflow.stream(QUESTION, [self.library.get(entry.id)], budget=budget, resumed=record)
            async for event in stream:
                self.events.append(event)
            return self.events[-1].answer

    def interrupted_after(self, shape: str, notes: int) -> None:
        """A run that is cancelled, as Ctrl-C does it, when it has taken so many notes."""

        async def cancelled() -> None:
            task = asyncio.ensure_future(self.answered(shape))
            while len(self.of(NoteTaken)) < notes:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def latest(self):
        return self.library.runs.list(1)[0]


@pytest.fixture
def ask(library: Library, server: ChatServer) -> Asking:
    return Asking(library, server)


@pytest.mark.parametrize(("shape", "pieces"), [*((shape, 40) for shape in SHAPES), ("map_reduce", 12)])
def test_a_run_killed_twice_goes_on_and_sends_no_stored_call_again(server, tmp_path, shape, pieces):
    original = prepare(tmp_path, shape=shape, pieces=pieces)
    killed = Path(shutil.copy(original, tmp_path / "killed.sqlite"))
    expected = undisturbed(server, original, shape=shape)
    chance = random.Random(shape)
    moments = [(chance.randint(1, 15), chance.random() / 50) for _ in range(2)]
    trial = killed_and_resumed(server, killed, shape=shape, moments=moments)
    assert trial.answer == expected.answer
    assert trial.answer["found"]
    assert 0 < trial.stored < expected.sent
    assert trial.sent == expected.sent - trial.stored


@pytest.mark.parametrize("shape", SHAPES)
def test_an_interrupted_question_goes_on_when_it_is_asked_again(ask, shape):
    ask.interrupted_after(shape, 5)
    cut_off = ask.latest
    assert cut_off.status == "interrupted"
    answer = ask(shape)
    (resumed,) = ask.of(Resumed)
    assert answer.run_id == resumed.run_id == cut_off.id
    assert resumed.notes >= 5
    assert len(resumed.pieces) == PIECES
    assert len(resumed.read) == resumed.notes
    assert 0 < len(resumed.found) < len(resumed.read)
    again = {event.name for event in ask.of(NoteTaken)}
    assert len(again) == PIECES - resumed.notes
    assert answer.passages_read == PIECES
    assert ask.latest.status == "answered"
    assert ask.latest.total.calls >= PIECES


def test_a_step_that_was_cancelled_half_way_is_done_again(ask):
    # What LangGraph leaves when a task is cancelled between its own writes and that of the edge to the next step.
    ask.interrupted_after("relay", 5)
    with sqlite3.connect(ask.library.checkpoints_path) as connection:
        step = connection.execute("SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints").fetchone()
        connection.execute("DELETE FROM writes")
        for index, channel in ((0, "at"), (-1, "__error__")):
            row = (*step, "task", "", index, channel, "msgpack", b"\x05")
            connection.execute(f"INSERT INTO writes VALUES ({', '.join('?' * len(row))})", row)
    state = asyncio.run(left_after_forgetting(ask.library, step[0]))
    assert state == []
    assert ask("relay").passages_read == PIECES


async def left_after_forgetting(library: Library, thread_id: str) -> list[tuple[str, str, object]]:
    async with library.checkpoints() as saver:
        await saver.forget_cancelled(thread_id)
        kept = await saver.aget_tuple({"configurable": {"thread_id": thread_id}})
        return list(kept.pending_writes)


def test_a_question_that_was_answered_begins_anew(ask):
    first = ask("fan")
    second = ask("fan")
    assert second.run_id != first.run_id
    assert ask.of(Resumed) == []
    assert second.usage.calls == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_partial_answer_is_completed_by_going_on_with_higher_caps(ask, server, shape):
    expected = comparable(ask(shape))
    other = Library.open(ask.library.path.with_name("capped.sqlite"))
    with other:
        shelve(other, ask.library.path.parent, PIECES)
        capped = Asking(other, server)
        partial = capped(shape, budget=Budget(calls=10))
        assert partial.partial
        assert partial.passages_read < PIECES
        assert any("cap of 10 calls" in warning for warning in partial.warnings)
        seen = len(server.requests)
        answer = capped(shape, resumed=partial.run_id)
        assert comparable(answer) == expected
        assert answer.run_id == partial.run_id
        assert len(server.requests) - seen == PIECES + 1 - 10


def test_no_note_is_taken_over_when_the_documents_are_cut_in_another_way(ask):
    ask.interrupted_after("fan", 5)
    ask("fan", window=8_192)
    assert [event.notes for event in ask.of(Resumed)] == [0]
    assert len(ask.of(NoteTaken)) == PIECES


def test_a_run_under_way_in_a_live_process_is_refused(ask):
    (entry,) = ask.library.list()
    document = ask.library.get(entry.id)
    with Library.open(ask.library.path) as elsewhere:
        run_id = elsewhere.runs.start(QUESTION, "fan", "fleet", [(document.id, document.name)], {})
        elsewhere.runs.list()
        with pytest.raises(RunUnderWayError, match=f"run {run_id} is under way, in process"):
            ask("fan", resumed=run_id)
        # The same question by itself is another run.
        assert ask("fan").run_id != run_id


def test_a_run_that_has_its_answer_is_refused(ask):
    answer = ask("fan")
    with pytest.raises(RunEndedError, match="came to its end; `lcdoc runs show"):
        ask("fan", resumed=answer.run_id)
    assert ask.latest.status == "answered"


def test_an_unknown_run_is_refused(ask):
    with pytest.raises(UnknownRunError):
        ask("fan", resumed="zzzz")


def test_of_two_that_take_over_a_run_one_does(ask):
    ask.interrupted_after("fan", 3)
    run_id = ask.latest.id
    with Library.open(ask.library.path) as other:
        other.runs.resume(run_id)
        with pytest.raises(RunUnderWayError):
            ask.library.runs.resume(run_id)


def test_whoever_asks_the_model_anew_gets_a_run_of_its_own(ask, server):
    ask.interrupted_after("fan", 5)
    seen = len(server.requests)
    answer = ask("fan", store="refresh")
    assert ask.of(Resumed) == []
    assert answer.usage.stored_calls == 0
    assert len(server.requests) - seen == PIECES + 1


def test_a_workspace_goes_on_with_a_run_from_the_library_alone(tmp_path):
    story = tmp_path / "story.md"
    story.write_text("# Lamps\n\nThe lamp was lit on 4 March 1871. The first keeper was a retired rope maker.\n")
    with Workspace.open(tmp_path / "library.sqlite", background=False, model="offline") as workspace:
        documents = workspace.read([story])
        partial = workspace.ask("When was the lamp lit?", documents, budget=Budget(seconds=0.0))
        assert partial.partial
        story.unlink()
        answer = workspace.resume(partial.run_id[:10])
        assert answer.run_id == partial.run_id
        assert "4 March 1871" in answer.claims[0].citations[0].quote
        again = workspace.ask("When was the lamp lit?", documents, budget=Budget(seconds=0.0))
        workspace.library.remove(documents[0].id)
        with pytest.raises(UnknownDocumentError, match="no document"):
            workspace.resume(again.run_id)
        elsewhere = workspace.library.runs.start("Why?", "retrieve", "http://127.0.0.1:9/v1#other", [], {})
        with pytest.raises(ModelConfigError, match=r"name http:.* as the model"):
            workspace.resume(elsewhere)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_state_is_left_when_a_run_has_ended(ask, shape):
    ask.interrupted_after(shape, 5)
    with sqlite3.connect(ask.library.checkpoints_path) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints").fetchone() == (1,)
    ask(shape)
    with sqlite3.connect(ask.library.checkpoints_path) as connection:
        for table in ("checkpoints", "writes"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_what_was_spent_is_told_on_the_way(ask):
    answer = ask("relay", budget=Budget(calls=1000))
    spent = ask.of(Spent)
    assert [one.usage.calls for one in spent] == sorted(one.usage.calls for one in spent)
    assert len({one.usage.calls for one in spent}) >= PIECES
    assert spent[-1].usage == answer.usage
    assert spent[-1].budget.calls == 1000
    assert ask.of(Started)[0].run_id == answer.run_id
    assert ask.events[-2:] == [spent[-1], ask.events[-1]]
