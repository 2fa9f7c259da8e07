"""Choosing a workflow: the documented table, and runs that were chosen for."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

import lcdoc
from lcdoc import Workspace
from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.memos import ForgetfulMemos
from lcdoc.agents.models.model import ModelSpec, Prices, Server
from lcdoc.agents.models.names import resolve
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.structured import StructuredModel
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Reader
from lcdoc.documents import Document, Page, Section, Source
from lcdoc.retrieval.embedders import load_embedder
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.workflows import auto
from lcdoc.workflows.auto import Auto, choose, chosen
from lcdoc.workflows.events import Answered, Chosen, Event, Started
from lcdoc.workflows.model_readers import ModelReaders
from lcdoc.workflows.question_kinds import QuestionKind, kind_of
from lcdoc.workflows.readers import OfflineReaders
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import run

DOCS = Path(lcdoc.__file__).parent / "docs" / "workflows.md"
VALUES: dict[str, tuple[str, ...]] = {
    "asks": get_args(QuestionKind),
    "who": get_args(auto.Who),
    "length": get_args(auto.Length),
    "caps": get_args(auto.Caps),
    "many": get_args(auto.Documents),
    "sections": get_args(auto.Sections),
}
COLUMNS = [*VALUES, "workflow", "because"]
QUESTIONS = {
    "look-up": "When was the lamp lit?",
    "list": "List all keepers of the lamp.",
    "comparison": "Compare the two ferries.",
    "chain": "Why did the keeper leave?",
    "theme": "What is the main theme of the story?",
    "summary": "Summarise the story.",
}
SENTENCE = "The keeper of the lamp walked along the pier and counted every ferry that came in from the fog. "


def table() -> list[dict[str, str]]:
    """The rows of the decision table in the documentation."""
    lines = DOCS.read_text(encoding="utf-8").partition("| asks |")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(COLUMNS, (cell.strip() for cell in line.strip("|").split("|")), strict=True)))
    return rows


ROWS = table()


def first_row(case: dict[str, str]) -> dict[str, str]:
    """The row that decides a case."""
    return next(
        row for row in ROWS if all(row[name] == "any" or value in row[name].split(", ") for name, value in case.items())
    )


def cases() -> Iterator[dict[str, str]]:
    return (dict(zip(VALUES, values, strict=True)) for values in product(*VALUES.values()))


def test_the_table_says_what_the_rules_say() -> None:
    for case in cases():
        row = first_row(case)
        rule = next(rule for rule in auto.RULES if rule.fits(SimpleNamespace(**case)))
        assert (row["workflow"], row["because"]) == (rule.workflow, rule.reason), case


def test_the_table_names_the_figures() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for figure in (*auto.SHORT_TOKENS.values(), auto.LONG_READINGS, auto.MOST_DOCUMENTS, auto.MOST_LISTED):
        assert f"{figure:,}" in text


def document(tokens: int, *, sections: bool, name: str = "story") -> Document:
    text = SENTENCE * max(1, tokens * len(SENTENCE) // (21 * len(SENTENCE)))
    source = Source(f"{name}.txt", "text/plain", 0, "", "text", "1", "0" * 32)
    cuts = [len(text) * part // 4 for part in range(5)] if sections else []
    outline = tuple(Section(f"Part {i}", 1, *cut) for i, cut in enumerate(pairwise(cuts), 1))
    return Document.create(text, (Page(1, "1", 0, len(text)),), outline, source)


TOKENS = {"short": 1_500, "fits": 40_000, "long": 40_000, "very long": 400_000}
WINDOWS = {"short": 80_000, "fits": 80_000, "long": 8_192, "very long": 8_192}


def spec_of(row: dict[str, str], url: str = "http://127.0.0.1:9/v1", **more: Any) -> ModelSpec:
    return ModelSpec("test", WINDOWS[row["length"]], Server(url, "test"), profile=row["who"], **more)


@asynccontextmanager
async def reader_of(spec: ModelSpec | None) -> AsyncIterator[Reader]:
    """A reader that is only measured: nothing is sent."""
    if spec is None:
        yield OfflineReader(load_embedder("minilm"))
        return
    client = OpenAIModel(spec, None)
    try:
        yield PromptedReader(StructuredModel(client, ForgetfulMemos()), secret=bytes(range(32)))
    finally:
        await client.aclose()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['asks']}-{row['who']}-{row['workflow']}")
def test_real_documents_and_readers_are_decided_by_the_table(row: dict[str, str]) -> None:
    case = next((case for case in cases() if first_row(case) is row), None)
    assert case is not None, "a row before decides all its cases"
    spec = None if case["who"] == "offline" else spec_of(case)
    count = 1 if case["many"] == "one" else 2
    parts = [
        document(TOKENS[case["length"]] // count, sections=case["sections"] == "yes", name=f"part {i}")
        for i in range(count)
    ]
    budget = Budget(tokens=100) if case["caps"] == "too low" else Budget()

    async def main() -> Chosen:
        async with reader_of(spec) as reader:
            return choose(QUESTIONS[case["asks"]], parts, reader, model=spec, budget=budget)

    picked = asyncio.run(main())
    assert picked.workflow == row["workflow"]
    assert picked.reason.endswith(row["because"])
    assert "\n" not in picked.reason


def test_the_questions_are_of_their_kinds() -> None:
    assert {kind: kind_of(question) for kind, question in QUESTIONS.items()} == {kind: kind for kind in QUESTIONS}


@pytest.mark.parametrize(
    ("budget", "enough"),
    [
        (Budget(), True),
        (Budget(usd=1.0), True),
        (Budget(usd=0.001), False),
        (Budget(calls=3), False),
        (Budget(calls=100, tokens=1_000_000), True),
        (Budget(tokens=10_000), False),
        (Budget(seconds=1.0), True),
    ],
)
def test_caps_that_admit_no_whole_reading_leave_retrieval(budget: Budget, enough: bool) -> None:
    spec = spec_of({"length": "long", "who": "large"}, prices=Prices(input=1.0, output=4.0))

    async def main() -> Chosen:
        async with reader_of(spec) as reader:
            return choose(QUESTIONS["chain"], [document(40_000, sections=True)], reader, model=spec, budget=budget)

    picked = asyncio.run(main())
    assert picked.workflow == ("chain" if enough else "retrieve")
    assert ("caps" in picked.reason) is not enough


def test_the_reason_tells_the_length() -> None:
    spec = spec_of({"length": "long", "who": "large"})

    async def main() -> Chosen:
        async with reader_of(spec) as reader:
            return choose(QUESTIONS["chain"], [document(40_000, sections=False)], reader, model=spec)

    assert "tokens in" in asyncio.run(main()).reason
    assert "readings" in asyncio.run(main()).reason


def test_a_window_without_room_is_an_error() -> None:
    spec = ModelSpec("test", 200, Server("http://127.0.0.1:9/v1", "test"))

    async def main() -> Chosen:
        async with reader_of(spec) as reader:
            return choose(QUESTIONS["chain"], [document(5_000, sections=False)], reader, model=spec)

    with pytest.raises(ModelConfigError):
        asyncio.run(main())


def test_an_empty_document_is_no_obstacle() -> None:
    empty = Document.create("", (Page(1, "1", 0, 0),), (), Source("e.txt", "text/plain", 0, "", "text", "1", "0" * 32))
    spec = spec_of({"length": "short", "who": "large"})

    async def main() -> set[str]:
        async with reader_of(spec) as reader:
            return {choose(question, [empty], reader, model=spec).workflow for question in QUESTIONS.values()}

    assert asyncio.run(main()) == {"direct", "map_reduce", "summarize"}


# Runs

LAMP = """# The Lamp

The lamp at the north pier was lit for the first time on 4 March 1871.

# The keepers

The first keeper was a retired rope maker. She left because nobody paid her wage.

# The ferries

The ferry Otterling carries ninety passengers. The ferry Bittern carries forty passengers only.
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "library.sqlite", background=False) as opened:
        yield opened


@pytest.fixture
def lamp(workspace: Workspace, tmp_path: Path) -> list[Document]:
    path = tmp_path / "lamp.md"
    path.write_text(LAMP, encoding="utf-8")
    return workspace.read([path])


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        server.default = Truthful()
        yield server


def offline_auto(workspace: Workspace) -> Auto:
    readers = OfflineReaders(workspace.embedder, workspace.library.runs)
    return Auto(workspace.library, Search(workspace.index), readers, OfflineReader(workspace.embedder))


def asked(workflow: Auto, question: str, documents: Sequence[Document], **more: Any) -> list[Event]:
    events: list[Event] = []
    asyncio.run(run(workflow, question, documents, on_event=events.append, **more))
    return events


def asked_online(
    workspace: Workspace, server: ChatServer, question: str, documents: Sequence[Document], *, window: int
) -> list[Event]:
    """What happens when auto answers through the server's model."""

    async def main() -> list[Event]:
        config = Config(models={"test": ModelEntry(url=server.url, model="test", context_window=window)})
        stack = ModelStack(resolve("test", config), workspace.library)
        try:
            readers = ModelReaders(stack, store="use", profile=None)
            measured = PromptedReader(stack.for_run(Ledger(), store="off"), secret=workspace.library.secret())
            workflow = Auto(workspace.library, Search(workspace.index), readers, measured, stack.spec)
            events: list[Event] = []
            await run(workflow, question, documents, on_event=events.append)
            return events
        finally:
            await stack.aclose()

    return asyncio.run(main())


def answer_of(events: list[Event]) -> Any:
    assert isinstance(events[-1], Answered)
    return events[-1].answer


def test_the_choice_comes_first_and_the_record_names_the_chosen_workflow(
    workspace: Workspace, lamp: list[Document]
) -> None:
    events = asked(offline_auto(workspace), "When was the lamp at the north pier lit for the first time?", lamp)
    assert isinstance(events[0], Chosen)
    assert events[0].workflow == "retrieve"
    answer = answer_of(events)
    assert answer.found
    assert answer.workflow == "retrieve"
    assert workspace.library.runs.find(answer.run_id).workflow == "retrieve"
    recorded = [entry.fields for entry in workspace.library.notebook.events(answer.run_id) if entry.kind == "Chosen"]
    assert recorded == [{"workflow": "retrieve", "reason": events[0].reason}]


def test_a_short_document_is_read_at_once_by_a_model(
    workspace: Workspace, lamp: list[Document], server: ChatServer
) -> None:
    events = asked_online(workspace, server, "Who was the first keeper?", lamp, window=32_768)
    assert events[0].workflow == "direct"
    assert "rope maker" in answer_of(events).claims[0].text
    assert len(server.requests) == 1


def test_a_resumed_run_goes_on_with_its_own_workflow(workspace: Workspace, lamp: list[Document]) -> None:
    workflow = offline_auto(workspace)
    question = "List all keepers of the lamp."
    named = [(document.id, document.name) for document in lamp]
    cut_off = workspace.library.runs.start(question, "retrieve", "offline", named, {})
    workspace.library.runs.finish(cut_off, "interrupted")
    record = workspace.library.runs.find(cut_off)

    async def main() -> list[Event]:
        return [event async for event in workflow.stream(question, lamp, resumed=record)]

    events = asyncio.run(main())
    assert not [event for event in events if isinstance(event, Chosen)]
    assert (answer_of(events).workflow, answer_of(events).run_id) == ("retrieve", cut_off)


def test_a_question_asked_again_goes_on_with_the_run_that_was_cut_off(
    workspace: Workspace, lamp: list[Document]
) -> None:
    workflow, question = offline_auto(workspace), "When was the lamp lit?"

    async def interrupted() -> str:
        events = workflow.stream(question, lamp)
        async for event in events:
            if isinstance(event, Started):
                await events.aclose()
                return event.run_id
        raise AssertionError("no run was started")

    run_id = asyncio.run(interrupted())
    answer = answer_of(asked(workflow, question, lamp))
    assert (answer.run_id, answer.workflow) == (run_id, "retrieve")
    assert [entry.kind for entry in workspace.library.notebook.events(run_id)].count("Chosen") == 1


def test_the_plan_is_that_of_the_chosen_workflow(workspace: Workspace, lamp: list[Document]) -> None:
    plan = asyncio.run(offline_auto(workspace).plan("When was the lamp lit?", lamp, None))
    assert plan.calls == 0


# Many documents


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace for questions that leave nothing behind which others could see."""
    with Workspace.open(tmp_path_factory.mktemp("archive") / "library.sqlite", background=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def shelf(archive: Workspace, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    folder = tmp_path_factory.mktemp("shelf")
    wreck = "Captain Oddy left the harbour because the harbour master had burnt the charts."
    for number in range(8):
        weeks = [f"In week {week} the crew of boat {number} mended nets and sails." for week in range(60)]
        told = [f"# Boat {number}", *weeks[:30], *([wreck] if number == 6 else []), *weeks[30:]]
        (folder / f"boat{number}.md").write_text("\n\n".join(told), encoding="utf-8")
    return archive.read([folder])


WHY = "Why did captain Oddy leave the harbour?"


def test_of_many_documents_only_candidates_are_read_in_full(
    archive: Workspace, shelf: list[Document], server: ChatServer
) -> None:
    events = asked_online(archive, server, WHY, shelf, window=5_000)
    assert events[0].workflow == "chain"
    assert "5 of 8 documents" in events[0].reason
    answer = answer_of(events)
    assert "burnt the charts" in answer.claims[0].text
    assert answer.document(answer.claims[0].citations[0].document_id).path.endswith("boat6.md")
    assert len(answer.documents) == 5
    assert [warning for warning in answer.warnings if warning.startswith("3 of 8 documents were left out")]
    assert not answer.partial


def test_what_fits_is_read_whole_however_many_documents_it_is(archive: Workspace, shelf: list[Document]) -> None:
    spec = ModelSpec("test", 200_000, Server("http://127.0.0.1:9/v1", "test"))

    async def main() -> auto.Selection:
        async with reader_of(spec) as reader:
            return await chosen(WHY, shelf, reader, Search(archive.index), model=spec)

    selection = asyncio.run(main())
    assert selection.chosen.workflow == "direct"
    assert list(selection.documents) == shelf
    assert selection.warning == ""


@pytest.mark.parametrize("question", ["When did the harbour open?", "List all captains.", "Summarise the logs."])
def test_nothing_is_left_out_for_look_ups_lists_and_summaries(
    archive: Workspace, shelf: list[Document], question: str
) -> None:
    spec = ModelSpec("test", 5_000, Server("http://127.0.0.1:9/v1", "test"))

    async def main() -> auto.Selection:
        async with reader_of(spec) as reader:
            return await chosen(question, shelf, reader, Search(archive.index), model=spec)

    assert list(asyncio.run(main()).documents) == shelf
