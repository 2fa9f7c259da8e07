"""What nodes carry, keep and look up, without a cluster: parcels, scratch libraries, the clerk, files that are sent."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.call_store import StoredModel
from lcdoc.agents.models.config import Config
from lcdoc.agents.models.model import Completion, Message, ModelSpec, RateLimits, Request
from lcdoc.agents.models.sharing import Told
from lcdoc.documents import Document, Page, Source
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray import cluster
from lcdoc.jobs.ray.clerk import Clerk, ClerkCalls, NodePurse, PurseTerms
from lcdoc.jobs.ray.errors import RayError
from lcdoc.jobs.ray.files import Mark, put_down
from lcdoc.jobs.ray.gate import Gate
from lcdoc.jobs.ray.node import Node, Packed, Terms
from lcdoc.jobs.ray.parcel import pack, unpack
from lcdoc.jobs.ray.parcels import Parcels, Stored
from lcdoc.jobs.ray.scratch import KEPT_DOCUMENTS, NodeLibrary, Scratch, ScratchFolder
from lcdoc.jobs.work import Prepared
from lcdoc.memory import Library
from lcdoc.memory.calls import Call
from lcdoc.memory.database import Database
from lcdoc.memory.errors import LibraryBusyError
from lcdoc.memory.job_records import Lease, TaskWork
from lcdoc.memory.owner import Owner
from lcdoc.memory.spending import CapReachedError, Caps, Spending
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER, load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.tests.jobs.small_jobs import QUESTION, texts
from lcdoc.workflows.workspace import Workspace

SECRET = b"s" * 32


class Direct:
    """A line to a clerk of the same process."""

    def __init__(self, clerk: Clerk) -> None:
        self._clerk = clerk
        self.told: set[asyncio.Task[Any]] = set()

    async def ask(self, what: str, *given: Any) -> Any:
        return await getattr(self._clerk, what)(*given)

    def tell(self, what: str, *given: Any) -> None:
        self.told.add(asyncio.ensure_future(self.ask(what, *given)))

    async def settled(self) -> None:
        await asyncio.gather(*self.told)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def _read(library: Library, path: str) -> str:
    """The id of the document in this file, which is in the library with all vectors."""
    with Workspace.open(library.path, background=False) as workspace:
        (document,) = workspace.read([path])
        workspace.fill(document)
        return document.id


def test_a_document_is_the_same_where_it_is_unpacked(library: Library, tmp_path: Path) -> None:
    document_id = _read(library, texts(tmp_path / "texts", 1)[0])
    with Library.open(tmp_path / "elsewhere.sqlite") as elsewhere:
        parcel = pack(library, document_id)
        unpack(parcel, elsewhere)
        unpack(parcel, elsewhere)
        assert elsewhere.get(document_id) == library.get(document_id)
        assert elsewhere.chunks(document_id) == library.chunks(document_id)
        assert elsewhere.verify() == []
        embedder = load_embedder(DEFAULT_EMBEDDER)
        indexes = [Index(each, embedder) for each in (library, elsewhere)]
        here, there = ([(hit.chunk, hit.cosine) for hit in index.search(QUESTION, 3)] for index in indexes)
        assert here == there
        assert all(cosine is not None for _, cosine in there)


def test_a_scratch_forgets_the_documents_used_longest_ago_and_none_in_use(library: Library, tmp_path: Path) -> None:
    folder = ScratchFolder(tmp_path / "nodes")
    scratch = Scratch(NodeLibrary(Database(folder.path / "library.sqlite"), SECRET), folder)
    chunker = Chunker()
    parcels = []
    for path in texts(tmp_path / "texts", KEPT_DOCUMENTS + 2):
        text = Path(path).read_text(encoding="utf-8")
        source = Source(path, "text/plain", len(text), "", "text", "1", str(len(parcels)))
        document = Document.create(text, (Page(1, "1", 0, len(text)),), (), source)
        library.add(document, chunker.chunks(document), recipe=chunker.recipe)
        parcels.append(pack(library, document.id))
    first = parcels[0].document.id
    assert not scratch.enter(first)
    scratch.unpack(parcels[0])
    for parcel in parcels[1:]:
        assert not scratch.enter(parcel.document.id)
        scratch.unpack(parcel)
        scratch.leave(parcel.document.id)
    assert {entry.id for entry in scratch.library.list()} == {
        first,
        *(parcel.document.id for parcel in parcels[3:]),
    }
    assert scratch.library.secret() == SECRET
    scratch.close()
    assert not folder.path.exists()


def test_folders_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "nodes" / "1-left"
    left.mkdir(parents=True)
    (left / "in-use").touch()
    held = ScratchFolder(tmp_path / "nodes")
    assert not left.exists()
    other = ScratchFolder(tmp_path / "nodes")
    assert held.path.exists()
    held.remove()
    other.remove()
    assert FileLock(tmp_path / "lock").acquire()


def test_a_file_is_known_by_its_size_its_beginning_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    data = bytearray(300_000)
    path.write_bytes(data)
    mark = Mark.of(str(path))
    assert mark is not None and mark.size == 300_000
    assert Mark.of(str(put_down("C:\\scans\\report.pdf", bytes(data), tmp_path / "sent"))) == mark
    assert (tmp_path / "sent" / "report.pdf").exists()
    for changed in (0, 299_999):
        path.write_bytes(data[:changed] + b"x" + data[changed + 1 :])
        assert Mark.of(str(path)) != mark
    assert Mark.of(str(tmp_path)) is None
    assert Mark.of(str(tmp_path / "missing")) is None


def test_a_node_reads_the_marked_file_and_no_other(library: Library, tmp_path: Path) -> None:
    (path,) = texts(tmp_path / "texts", 1)
    job = Job(tasks=[{"question": QUESTION, "workflow": "retrieve"}], model="offline")
    terms = Terms("job", job.settings(), Config(), SECRET, None, None)
    node = Node(terms, "node", line=Direct(Clerk(library)))
    try:
        mark, data = Mark.of(path), Path(path).read_bytes()
        read = node.prepare(path, mark, None)
        Path(path).write_bytes(data + b"\nA line was added.\n")
        assert node.prepare(path, mark, None) is None
        sent = node.prepare("/on/another/machine/ferry-1.txt", mark, data)
        assert read is not None and sent is not None
        assert (sent[0].document_id, sent[0].name) == (read[0].document_id, read[0].name)
        assert sent[1].chunks == read[1].chunks

        async def fetch() -> Any:
            return read[1]

        lease = Lease("token", "worker", 0.0)
        work = TaskWork("job", 7, "/on/another/machine/ferry-1.txt", read[0].document_id, 1, 1, lease)
        row = asyncio.run(node.answer(work, None, fetch)).row
        assert "101" in row.answer
        assert (row.document.number, row.document.path) == (7, work.path)
    finally:
        node.close()


def test_parcels_are_kept_while_there_is_room() -> None:
    def stored(name: str, size: int) -> Stored:
        return Stored(Packed(Prepared(name, "", 1, 10, 0.1), size), f"reference to {name}")

    parcels = Parcels(most_bytes=250)
    for name in "abc":
        parcels.keep(stored(name, 100))
    assert [parcels.get(name) is not None for name in "acb"] == [False, True, True]
    parcels.keep(stored("b", 110))
    parcels.keep(stored("d", 100))
    assert parcels.get("c") is None
    assert parcels.size_bytes == 210
    parcels.keep(stored("e", 1000))
    large = parcels.get("e")
    assert large is not None and large.reference == "reference to e"
    assert (parcels.get("d"), parcels.size_bytes) == (None, 1000)
    parcels.drop("e")
    assert parcels.size_bytes == 0


def test_a_call_is_made_by_one_node_and_known_to_all(library: Library) -> None:
    async def told() -> None:
        clerk = Clerk(library)
        line = Direct(clerk)
        one, two, three = (ClerkCalls(line, member) for member in ("one", "two", "three"))
        assert await one.claim("key") is True
        assert await one.claim("key") is True
        assert await two.claim("key") is False
        assert two.is_claimed("key")
        await asyncio.sleep(0.01)
        assert two.is_claimed("key")
        call = Call("an answer", "model", tokens_in=5)
        await one.put("key", call)
        kept = await two.claim("key")
        assert isinstance(kept, Call) and kept.text == "an answer"
        # One that is not good enough is replaced.
        assert await two.claim("key", other_than=kept.created_at) is True
        two.release("key")
        await line.settled()
        assert await three.claim("key", other_than=kept.created_at) is True

    asyncio.run(told())


class Counting:
    """A model that counts what it is asked."""

    spec = ModelSpec("counting", 8192)

    def __init__(self) -> None:
        self.asked = 0

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def complete(self, request: Request) -> Completion:
        self.asked += 1
        await asyncio.sleep(0.01)
        return Completion(f"answer {self.asked}")


def test_models_of_two_nodes_ask_once(library: Library) -> None:
    async def told() -> None:
        line, counting, ledger = Direct(Clerk(library)), Counting(), Ledger()
        models = [StoredModel(counting, ClerkCalls(line, member), ledger) for member in ("one", "two")]
        request = Request((Message("user", "Why?"),))
        at_once = await asyncio.gather(*(model.complete(request) for model in models))
        again = await models[1].complete(request)
        assert {completion.text for completion in (*at_once, again)} == {"answer 1"}
        assert again.stored
        assert counting.asked == 1
        await line.settled()

    asyncio.run(told())


def test_what_a_member_was_at_is_free_when_it_is_gone(library: Library) -> None:
    async def told() -> None:
        clerk = Clerk(library)
        line = Direct(clerk)
        assert await ClerkCalls(line, "one").claim("key") is True
        clerk.forget("one")
        assert await ClerkCalls(line, "two").claim("key") is True
        with Library.open(library.path) as other:
            assert await other.calls.claim("key") is False

    asyncio.run(told())


def test_a_call_that_another_process_of_the_library_makes_is_waited_for(library: Library) -> None:
    async def told() -> None:
        calls = ClerkCalls(Direct(Clerk(library)), "one")
        with Library.open(library.path) as other:
            assert await other.calls.claim("key") is True
            assert await calls.claim("key") is False

    asyncio.run(told())


def test_what_a_lost_member_held_back_counts_as_spent(library: Library) -> None:
    job = Job(tasks=[{"question": "Why?"}], caps={"calls": 3})
    job_id = library.jobs.create(job.settings(), tasks=1)
    library.jobs.add_documents(job_id, ["a"])
    purse = library.purses.open(job_id, Caps(calls=3), Caps())

    async def told() -> None:
        clerk = Clerk(library, purse)
        line = Direct(clerk)
        with purse.at_work(1):
            terms = PurseTerms.of(purse, job, 1)
            assert terms is not None
            lost, kept = NodePurse(line, "lost", terms), NodePurse(line, "kept", terms)
            await lost.reserve(Spending(calls=1))
            clerk.forget("lost")
            number = await kept.reserve(Spending(calls=1))
            kept.release(number)
            await line.settled()
            for _ in range(2):
                kept.settle(await kept.reserve(Spending(calls=1)), Spending(calls=1))
                await line.settled()
            with pytest.raises(CapReachedError, match="cap of 3 calls is reached"):
                await kept.reserve(Spending(calls=1))
            # What is told again, by one that was thought lost, changes nothing.
            lost.settle(1, Spending(calls=1))
            await asyncio.gather(*line.told)
        assert purse.reached is not None

    asyncio.run(told())
    assert PurseTerms.of(None, job, 1) is None


def test_an_error_of_the_library_is_the_same_error_at_a_node(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_given: object, **_options: object) -> None:
        raise LibraryBusyError(library.path, "it is locked", "wait")

    monkeypatch.setattr(library.calls, "claim", busy)
    calls = ClerkCalls(Direct(Clerk(library)), "one")
    with pytest.raises(LibraryBusyError, match="it is locked; wait"):
        asyncio.run(calls.claim("key"))


def test_turns_are_shared_by_all_members_and_those_of_dead_ones_come_free() -> None:
    gate, limits = Gate(), RateLimits(concurrency=2)
    here = str(Owner.here())
    assert len(gate.exchange("server", limits, here, Told(0, (), (1, 1, 1))).turns) == 2
    other = str(Owner.here())
    assert gate.exchange("server", limits, other, Told(0, (), (1,))).turns == ()
    assert len(gate.exchange("another", limits, other, Told(0, (), (1,))).turns) == 1
    gone = here.replace(f" {Owner.from_text(here).pid},", " 999999999,")
    gate = Gate()
    assert len(gate.exchange("server", limits, gone, Told(0, (), (1, 1))).turns) == 2
    assert len(gate.exchange("server", limits, other, Told(0, (), (1,))).turns) == 1


def test_desks_that_die_as_they_are_opened_stop_the_job() -> None:
    ray = pytest.importorskip("ray")
    from lcdoc.jobs.ray.desks import _DEATHS, Desks, _Place

    class Dying:
        @property
        def open(self) -> "Dying":
            return self

        async def remote(self) -> None:
            raise ray.exceptions.RayError("out of memory")

    async def main() -> Any:
        desks = Desks([], "local", concurrency=1, gone=lambda _member: None)
        for _ in range(_DEATHS):
            await desks._open(_Place("desk", "node", Dying()))
        lease = Lease("token", "worker", 0.0)
        async with asyncio.timeout(10):
            return await desks.answer(TaskWork("job", 1, "a.txt", "id", 1, 1, lease), None, None)

    fault = asyncio.run(main())
    assert fault.reach == "job"
    assert fault.reason.endswith(f"dies as it begins, {_DEATHS} times now: out of memory")


def test_a_client_that_gets_no_answer_is_told_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")

    def refuse(**_given: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(cluster, "_reach", lambda _address: None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with (
        pytest.raises(RayError, match=r"ray://head:10001 does not answer: .* set RAY_AUTH_MODE=token"),
        cluster.connected("ray://head:10001"),
    ):
        pass
