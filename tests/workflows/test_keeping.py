"""Documents that a small trained model has read before they are asked about: the same pieces, whatever is asked."""

import _thread
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.local import engines
from lcdoc.benchmarks.small_model_workflows import Asked, made
from lcdoc.documents import Document
from lcdoc.workflows.events import Event, Pieces, Progress
from lcdoc.workflows.trace import trace
from lcdoc.workflows.workspace import Workspace

MODEL = Path(__file__).parents[2] / "benchmarks" / "data" / "small_model"
RECIPE = "keydiff@0.75"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    engines.close()
    torch.set_num_threads(before)


@pytest.fixture
def asked(tmp_path: Path) -> list[Asked]:
    """Questions about one document of a few pieces."""
    return made(tmp_path, 0, 40)


@pytest.fixture
def opened(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Callable[..., Workspace]]:
    spaces: list[Workspace] = []

    def open_one(name: str = "library", **settings: object) -> Workspace:
        entry = ModelEntry(model=f"local/{MODEL}", dtype="float32")
        config = Config(models={"small": entry.model_copy(update=settings)})
        space = Workspace.open(tmp_path / f"{name}.sqlite", background=False, model="small", config=config)
        spaces.append(space)
        return space

    yield open_one
    for space in spaces:
        space.close()


def places(events: list[Event]) -> tuple[object, ...]:
    return next(event.places for event in events if isinstance(event, Pieces))


def kept_tokens(space: Workspace) -> int:
    return sum(one.tokens for one in space.library.caches.list())


def test_what_was_kept_is_not_read_again_whatever_is_asked_and_by_whom(opened, asked):
    space = opened()
    documents = space.read([asked[0].path])
    keeping = space.keeping(documents, recipe=RECIPE, purposes=["read"])
    assert len(keeping.units) > 1
    kept = space.keep(keeping)
    assert (kept.pieces, kept.there, kept.unkept) == (len(keeping.units), 0, 0)
    assert kept.tokens == keeping.estimate.tokens == kept_tokens(space)
    assert kept.share == pytest.approx(0.75, abs=0.05)
    cut: set[tuple[object, ...]] = set()
    for workflow, one in (("map_reduce", asked[0]), ("chain", asked[1])):
        events: list[Event] = []
        answer = space.ask(one.question, documents, workflow=workflow, on_event=events.append)
        cut.add(places(events))
        assert answer.usage.tokens_cached >= kept_tokens(space), workflow
        assert answer.kv == (RECIPE,)
        assert answer.model == "small"
    assert len(cut) == 1
    assert len(space.library.caches.list()) == len(keeping.units)
    told = "\n".join(trace(space.library, space.library.runs.find(answer.run_id)).lines(200))
    assert f"read through caches kept by {RECIPE}" in told


def test_a_document_that_fits_is_kept_whole_too(opened, tmp_path):
    space = opened()
    short = made(tmp_path, 1, 4)
    documents = space.read([short[0].path])
    keeping = space.keeping(documents, recipe="full")
    assert [unit.request.prompt.split("/")[0] for unit in keeping.units] == ["read", "direct"]
    space.keep(keeping)
    answers = [space.ask(one.question, documents, workflow="direct") for one in short[:2]]
    assert [answer.usage.tokens_cached for answer in answers] == [keeping.units[1].tokens] * 2
    assert [answer.kv for answer in answers] == [(), ()]
    assert space.library.caches.of_document(documents[0].id)
    space.library.remove(documents[0].id)
    assert space.library.caches.list() == []


def test_whole_caches_change_no_answer(opened, asked):
    plain, keeping = opened("plain"), opened("keeping", kv="full")
    # The fences are keyed by the library, and so would be the prompts.
    keeping.library._secret = plain.library.secret()
    for one in (asked[0], asked[1]):
        answers = [
            space.ask(one.question, space.read([one.path]), workflow="map_reduce", store="off")
            for space in (plain, keeping)
        ]
        assert [claim.text for claim in answers[0].claims] == [claim.text for claim in answers[1].claims]
    assert answers[1].usage.tokens_cached >= kept_tokens(keeping) > 0


def test_keeping_goes_on_where_it_was_interrupted(opened, asked):
    space = opened()
    documents = space.read([asked[0].path])

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "keeping" and event.done:
            _thread.interrupt_main()
            time.sleep(0.3)  # the next piece begins when the interruption has come

    keeping = space.keeping(documents, recipe=RECIPE, purposes=["read"])
    with pytest.raises(KeyboardInterrupt):
        space.keep(keeping, on_event=interrupt)
    assert len(space.library.caches.list()) == 1
    again = space.keeping(documents, purposes=["read"])
    assert again.recipe == RECIPE
    assert len(again.missing) == len(keeping.units) - 1
    kept = space.keep(again)
    assert (kept.there, kept.unkept) == (1, 0)
    assert space.keep(space.keeping(documents, purposes=["read"])).tokens == 0


def test_what_a_question_left_serves_others_once_it_is_prepared(opened, asked):
    tried, plain = opened(kv=RECIPE), opened()
    documents = plain.read([asked[0].path])
    assert tried.ask(asked[0].question, documents, workflow="map_reduce").kv == (RECIPE,)
    assert plain.ask(asked[0].question, documents, workflow="map_reduce").kv == ()
    kept = plain.keep(plain.keeping(documents, recipe=RECIPE, purposes=["read"]))
    assert (kept.tokens, kept.there) == (0, kept.pieces)
    assert plain.ask(asked[1].question, documents, workflow="map_reduce").kv == (RECIPE,)


def test_retrieval_keeps_nothing(opened, asked):
    space = opened(kv=RECIPE)
    documents = space.read([asked[0].path])
    space.ask(asked[0].question, documents, workflow="retrieve")
    assert space.library.caches.list() == []
    space.ask(asked[0].question, documents, workflow="chain")
    assert space.library.caches.list() != []


def test_an_edited_page_alone_is_read_again(opened, asked):
    space = opened()
    document = one_document(space, asked[0].path)
    space.keep(space.keeping([document], recipe=RECIPE, purposes=["read"]))
    text = asked[0].path.read_text(encoding="utf-8")
    asked[0].path.write_text(text.rstrip() + " It rained on the last day.\n", encoding="utf-8")
    again = space.keeping([one_document(space, asked[0].path)], recipe=RECIPE, purposes=["read"])
    assert 0 < len(again.missing) < len(again.units)


@pytest.mark.parametrize(
    ("settings", "recipe", "message"),
    [
        ({"kv": "snapkv@0.5"}, "snapkv@0.5", "goes by the question"),
        ({"kv": RECIPE}, "kvzip@0.5", "reads by its own kv"),
        ({}, "nosuch@0.5", "kv list"),
    ],
)
def test_what_would_not_be_read_is_refused(opened, asked, settings, recipe, message):
    space = opened(**settings)
    with pytest.raises(ModelConfigError, match=message):
        space.keeping(space.read([asked[0].path]), recipe=recipe)


def one_document(space: Workspace, path: Path) -> Document:
    (document,) = space.read([path])
    return document
