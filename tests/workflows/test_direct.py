"""Reading everything at once: one call over whole documents, claims with checked quotes."""

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lcdoc.agents.models.counting import counter_for
from lcdoc.agents.models.errors import ContextOverflowError
from lcdoc.agents.models.model import MESSAGE_OVERHEAD_TOKENS, ModelSpec, Profile
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.reader import Reader
from lcdoc.documents import Document
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.tests.servers.chat_server import ChatServer, Reply, Status, error_body
from lcdoc.tests.servers.truthful import Truthful, answering, blocks_of, skill_of
from lcdoc.workflows import events
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.direct import Direct, fits
from lcdoc.workflows.readers import OfflineReaders, ReadingDesk
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Budget, Plan, run
from lcdoc.workflows.workspace import Workspace

WINDOW = 8192
QUESTION = "Which captain kept the brass sextant?"
FACT = "The brass sextant was kept by captain Amara Holm."
_FILLER = "Rain fell on page {page} of the journal and the mill turned {line} times before dusk."


@cache
def embedder() -> Embedder:
    return load_embedder()


def book(pages: int, facts: dict[int, str], *, lines: int = 10) -> str:
    """A text of so many pages, with facts on some of them (from 1)."""
    return "\f".join(
        " ".join([*(_FILLER.format(page=page, line=line) for line in range(lines)), facts.get(page, "")])
        for page in range(1, pages + 1)
    )


class Desk:
    """A library, a server and a model."""

    def __init__(self, workspace: Workspace, folder: Path, server: ChatServer) -> None:
        self.workspace = workspace
        self.server = server
        self.events: list[events.Event] = []
        self._folder = folder

    def documents(self, *texts: str) -> list[Document]:
        paths = [self._folder / f"book{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return self.workspace.read(paths)

    def ask(
        self,
        documents: list[Document],
        *,
        budget: Budget | None = None,
        offline: bool = False,
        profile: Profile | None = None,
    ) -> Answer:
        async def asked(desk: ReadingDesk) -> Answer:
            readers = (
                OfflineReaders(embedder(), self.workspace.library.runs)
                if offline
                else await desk.readers(embedder(), store="use", profile=profile)
            )
            direct = Direct(self.workspace.library, Search(self.workspace.index), readers)
            return await run(direct, QUESTION, documents, budget=budget, on_event=self.events.append)

        return self._at(asked)

    def plan(self, documents: list[Document]) -> Plan:
        async def planned(desk: ReadingDesk) -> Plan:
            direct = Direct(self.workspace.library, Search(self.workspace.index), OfflineReaders(embedder(), None))
            return await direct.plan(QUESTION, documents, await desk.stage(embedder(), profile=None))

        return self._at(planned)

    def fits(self, documents: list[Document]) -> bool:
        return self.fit([documents])[0]

    def fit(self, choices: list[list[Document]]) -> list[bool]:
        async def asked(desk: ReadingDesk) -> list[bool]:
            reader: Reader = (await desk.stage(embedder(), profile=None)).reader
            return [fits(documents, QUESTION, reader) for documents in choices]

        return self._at(asked)

    def _at(self, use: Callable) -> object:
        async def main() -> object:
            desk = ReadingDesk(self.workspace.library, "honest")
            try:
                return await use(desk)
            finally:
                await desk.aclose()

        return asyncio.run(main())

    def messages(self) -> list[tuple[str, str]]:
        """System and user messages of the requests."""
        bodies = [request.body["messages"] for request in self.server.requests]
        return [(system["content"], user["content"]) for system, user in bodies]


@pytest.fixture
def desk(server: ChatServer, configure: Callable[[str], None], tmp_path: Path) -> Iterator[Desk]:
    server.models = [{"id": "honest", "max_model_len": WINDOW}]
    configure(f'[models.honest]\nurl = "{server.url}"\nprices = {{ input = 1.0, output = 4.0 }}\n')
    with Workspace.open(tmp_path / "library.sqlite", background=False, model="honest") as workspace:
        yield Desk(workspace, tmp_path, server)


def answering_with(desk: Desk, *claims: dict[str, object], found: bool = True) -> None:
    desk.server.default = answering(direct={"found": found, "claims": list(claims)})


@pytest.mark.parametrize("profile", ["small", "large"])
def test_one_call_reads_everything_and_cites_the_page(desk: Desk, profile: Profile) -> None:
    (document,) = documents = desk.documents(book(12, {5: FACT}))
    answer = desk.ask(documents, profile=profile)
    ((system, user),) = desk.messages()
    assert skill_of(system) == ("direct", profile)
    (block,) = blocks_of(user)[0]
    assert block.text == document.body
    assert answer.found
    assert not answer.partial
    assert answer.workflow == "direct"
    assert answer.claims[0].citations[0].quote == FACT
    assert answer.claims[0].citations[0].pages == (5,)
    assert answer.confidence == answer.claims[0].confidence == 4
    assert answer.pages_read[0].unread == ()
    assert answer.passages_read == answer.passages
    assert answer.usage.calls == 1


def test_the_answer_is_shown_while_it_is_written(desk: Desk) -> None:
    desk.ask(desk.documents(book(3, {2: FACT})))
    shown = [event.text for event in desk.events if isinstance(event, events.Partial)]
    assert len(shown) > 1
    assert shown[-1] == FACT
    assert all(FACT.startswith(text) for text in shown)
    kinds = [type(event) for event in desk.events]
    assert kinds.index(events.Pieces) < kinds.index(events.Partial) < kinds.index(events.NoteTaken)
    (note,) = [event for event in desk.events if isinstance(event, events.NoteTaken)]
    assert (note.found, note.quotes, note.pages) == (True, 1, (2,))


def test_claims_are_worth_what_their_quotes_are(desk: Desk) -> None:
    answering_with(
        desk,
        {"text": "Holm kept it.", "quotes": [FACT, "Nowhere to be read."], "confidence": 5},
        {"text": "She was proud.", "quotes": ["She was very proud of it."], "confidence": 5},
        {"text": "Holm kept it for 1234 days.", "quotes": [FACT, FACT], "confidence": 4},
        {"text": "The text does not say.", "quotes": [], "confidence": 5},
    )
    answer = desk.ask(desk.documents(book(3, {2: FACT})))
    assert [(claim.text, claim.support, claim.confidence) for claim in answer.claims] == [
        ("Holm kept it.", "quoted", 5),
        ("She was proud.", "unsupported", 1),
        ("Holm kept it for 1234 days.", "quoted", 2),
    ]
    assert answer.claims[2].unquoted_figures == ("1234",)
    assert len(answer.claims[2].citations) == 1
    assert answer.quotes_dropped == 2
    assert answer.confidence == pytest.approx(8 / 3, abs=0.01)


@pytest.mark.parametrize(
    "claims", [[], [{"text": "Not mentioned.", "quotes": []}], [{"text": "Holm.", "quotes": [FACT]}]]
)
def test_what_is_not_found_has_no_claims(desk: Desk, claims: list[dict[str, object]]) -> None:
    answering_with(desk, *claims, found=not claims or claims[0]["text"] != "Holm.")
    answer = desk.ask(desk.documents(book(3, {2: FACT})))
    assert not answer.found
    assert not answer.partial
    assert answer.claims == ()
    assert answer.pages_read[0].unread == ()


def test_documents_that_do_not_fit_are_not_sent_and_the_message_says_what_to_do(desk: Desk) -> None:
    documents = desk.documents(book(60, {5: FACT}))
    assert not desk.fits(documents)
    with pytest.raises(ContextOverflowError, match=r"tokens.*choose a workflow that reads documents in parts"):
        desk.ask(documents)
    with pytest.raises(ContextOverflowError, match="choose a workflow"):
        desk.plan(documents)
    assert desk.server.requests == []
    assert desk.workspace.library.runs.list(1)[0].status == "failed"


def test_a_server_that_counts_more_tokens_is_believed(desk: Desk) -> None:
    said = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."
    desk.server.default = Status(400, body=error_body(said, code="context_length_exceeded"))
    documents = desk.documents(book(8, {5: FACT}))
    assert desk.fits(documents)
    with pytest.raises(ContextOverflowError, match="choose a workflow"):
        desk.ask(documents)
    assert len(desk.server.requests) == 1


def test_fitting_is_as_exact_as_the_count(desk: Desk) -> None:
    """The longest book that fits leaves little room, and its request fits the window."""
    lengths = range(12, 24, 3)
    does = desk.fit([[one] for one in desk.documents(*(book(pages, {3: FACT}) for pages in lengths))])
    assert does == sorted(does, reverse=True)
    assert does[0]
    assert not does[-1]
    desk.ask(desk.documents(book(lengths[does.count(True) - 1], {3: FACT})))
    (request,) = desk.server.requests
    count = counter_for(ModelSpec("honest", WINDOW))
    taken = sum(count(message["content"]) + MESSAGE_OVERHEAD_TOKENS for message in request.body["messages"])
    page = count(book(1, {}))
    assert WINDOW - 4 * page < taken + request.body["max_tokens"] <= WINDOW


def test_several_documents_are_read_together(desk: Desk) -> None:
    documents = desk.documents(book(3, {2: "The harbour opened in May."}), book(4, {3: FACT}, lines=8))
    assert desk.fits(documents)
    answer = desk.ask(documents)
    ((_, user),) = desk.messages()
    assert [block.header["document"] for block in blocks_of(user)[0]] == [document.name for document in documents]
    assert answer.claims[0].citations[0].document_id == documents[1].id
    assert [pages.unread for pages in answer.pages_read] == [(), ()]
    both = [*documents, *desk.documents(*[book(20, {}, lines=9 + number) for number in range(4)])]
    assert not desk.fits(both)


def test_a_document_without_text_asks_nobody(desk: Desk) -> None:
    (document,) = desk.documents(book(1, {}))
    empty = Document.create("", (), (), document.source)
    desk.workspace.library.add(empty, [], recipe=desk.workspace.chunker.recipe)
    assert desk.fits([empty])
    answer = desk.ask([empty])
    assert not answer.found
    assert not answer.partial
    assert desk.server.requests == []
    assert desk.plan([empty]).calls == 0


def test_caps_leave_a_partial_answer_that_says_so(desk: Desk) -> None:
    documents = desk.documents(book(6, {5: FACT}))
    for budget in (Budget(usd=0.0001), Budget(tokens=100), Budget(seconds=0.0)):
        answer = desk.ask(documents, budget=budget)
        assert answer.partial
        assert not answer.found
        assert answer.warnings
        assert answer.pages_read[0].read == ()
    assert desk.server.requests == []


def test_a_refused_request_is_an_error(desk: Desk) -> None:
    desk.server.default = Reply(json.dumps({"claims": "none"}))
    with pytest.raises(Exception, match="honest"):
        desk.ask(desk.documents(book(3, {2: FACT})))
    desk.server.default = Truthful()
    assert desk.ask(desk.documents(book(3, {2: FACT}))).found


def test_the_plan_is_one_call(desk: Desk) -> None:
    documents = desk.documents(book(12, {5: FACT}))
    plan = desk.plan(documents)
    assert desk.server.requests == []
    answer = desk.ask(documents)
    assert plan.calls == answer.usage.calls == 1
    assert plan.tokens_in == pytest.approx(answer.usage.tokens_in, rel=0.25)
    assert plan.at_most.tokens_in >= plan.tokens_in
    assert plan.cost_usd > 0


def test_offline_the_best_sentences_of_everything_are_quoted(desk: Desk) -> None:
    documents = desk.documents(book(40, {31: FACT}))
    assert fits(documents, QUESTION, OfflineReader(embedder()))
    answer = desk.ask(documents, offline=True)
    assert desk.server.requests == []
    assert answer.claims[0].citations[0].quote == FACT
    assert answer.claims[0].citations[0].pages == (31,)
    assert answer.pages_read[0].unread == ()
    assert answer.model == "offline"
