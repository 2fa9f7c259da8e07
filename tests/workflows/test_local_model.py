"""A model that runs in process answers through every workflow: random weights, but held to the shape of each answer."""

import _thread
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelNameError
from lcdoc.agents.models.local import engines
from lcdoc.documents import Document
from lcdoc.tests.agents.models.local_checkpoint import save_terse
from lcdoc.workflows.events import Event, NoteTaken, Progress, Resumed
from lcdoc.workflows.workflow import Budget
from lcdoc.workflows.workspace import Workspace

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.md"
QUESTION = "How many passengers may the Bittern carry?"
WORKFLOWS = ("direct", "retrieve", "chain", "map_reduce", "tree", "tree_walk", "summarize", "auto")
WINDOW = 5120
"""Of the model; the small tokenizer makes a token of every two characters, so a piece is short."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield save_terse(tmp_path_factory.mktemp("models") / "terse", window=WINDOW)
    engines.close()
    torch.set_num_threads(before)


@pytest.fixture
def opened(model: Path, tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Callable[..., Workspace]]:
    """Open a workspace over a library of this name, that answers with the model."""
    spaces: list[Workspace] = []

    def open_one(name: str = "library", *, config: Config | None = None) -> Workspace:
        named = "mine" if config else f"local/{model}"
        space = Workspace.open(tmp_path / f"{name}.sqlite", background=False, model=named, config=config)
        spaces.append(space)
        return space

    yield open_one
    for space in spaces:
        space.close()


def handbook(space: Workspace, folder: Path, characters: int) -> list[Document]:
    path = folder / "handbook.md"
    path.write_text(HANDBOOK.read_text(encoding="utf-8")[:characters], encoding="utf-8")
    return space.read([path])


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_workflow_gets_answers_of_their_shapes(workflow, opened, tmp_path):
    space = opened()
    documents = handbook(space, tmp_path, 1_500 if workflow == "direct" else 6_000)
    question = "Summarize in 60 words" if workflow == "summarize" else QUESTION
    answer = space.ask(question, documents, workflow=workflow)
    assert answer.usage.calls > 0
    assert answer.usage.failed_calls == 0
    assert not answer.partial
    assert answer.usage.cost_usd == 0.0
    assert not answer.usage.estimated
    assert answer.model == space.model


def test_the_same_question_again_asks_nothing_and_loads_nothing(opened, tmp_path):
    space = opened()
    documents = handbook(space, tmp_path, 3_000)
    first = space.ask(QUESTION, documents, workflow="map_reduce")
    engines.close()
    again = space.ask(QUESTION, documents, workflow="map_reduce")
    assert again.usage.calls == 0
    assert again.usage.stored_calls == first.usage.calls
    assert not engines._engines


def test_an_estimate_counts_the_models_own_tokens_and_loads_nothing(opened, tmp_path):
    engines.close()
    space = opened()
    documents = handbook(space, tmp_path, 1_500)
    plan = space.plan(QUESTION, documents, workflow="direct")
    assert not engines._engines
    assert plan.cost_usd == 0.0
    used = space.ask(QUESTION, documents, workflow="direct").usage
    assert used.tokens_in <= plan.tokens_in <= 1.05 * used.tokens_in


def test_the_pieces_of_a_chain_are_read_ahead(opened, tmp_path):
    engines.close()
    space = opened()
    answer = space.ask(QUESTION, handbook(space, tmp_path, 8_000), workflow="chain")
    (loaded,) = engines._engines.values()
    assert answer.usage.calls >= 3
    assert loaded.result().stats().requests > answer.usage.calls
    assert answer.usage.tokens_cached > 0


def test_two_workspaces_share_one_engine_and_loading_is_told(opened, tmp_path):
    engines.close()
    seen: list[Event] = []
    for name in ("one", "two"):
        space = opened(name)
        space.ask(QUESTION, handbook(space, tmp_path, 1_500), workflow="direct", on_event=seen.append)
    assert len(engines._engines) == 1
    loading = [event for event in seen if isinstance(event, Progress) and event.stage == "loading"]
    assert [(event.done, event.total) for event in loading] == [(1, 3), (2, 3), (3, 3)]


def test_a_cap_gives_a_partial_answer_that_can_be_gone_on_with(opened, tmp_path):
    space = opened()
    documents = handbook(space, tmp_path, 6_000)
    capped = space.ask(QUESTION, documents, workflow="map_reduce", budget=Budget(calls=1))
    assert capped.partial
    assert capped.usage.calls == 1
    whole = space.resume(capped.run_id, budget=Budget())
    assert not whole.partial
    short = space.ask("What else?", documents, workflow="map_reduce", budget=Budget(tokens=3_000))
    assert short.partial
    assert short.usage.tokens_in + short.usage.tokens_out <= 3_000


def test_an_interrupted_run_is_gone_on_with(opened, tmp_path):
    space = opened()
    # Long enough that it is not read to its end while the interruption is on its way.
    documents = handbook(space, tmp_path, 24_000)
    seen: list[Event] = []

    def leave(event: Event) -> None:
        seen.append(event)
        if len([one for one in seen if isinstance(one, NoteTaken)]) == 1:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        space.ask(QUESTION, documents, workflow="chain", on_event=leave)
    (loaded,) = engines._engines.values()
    deadline = time.monotonic() + 10
    while loaded.result().stats().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loaded.result().stats().running == 0
    noted = len([one for one in seen if isinstance(one, NoteTaken)])
    seen.clear()
    answer = space.ask(QUESTION, documents, workflow="chain", on_event=seen.append)
    (resumed,) = [event for event in seen if isinstance(event, Resumed)]
    assert resumed.notes >= noted >= 1
    assert not answer.partial


def test_a_window_that_the_cache_does_not_hold_is_learnt(opened, model, tmp_path):
    """The weights fit, and the memory allowed holds less than the window."""
    entry = ModelEntry(model=f"local/{model}", max_memory=1.5e6)
    space = opened(config=Config(models={"mine": entry}))
    answer = space.ask(QUESTION, handbook(space, tmp_path, 6_000), workflow="map_reduce")
    assert answer.usage.calls > 0
    assert answer.passages_read == answer.passages


def test_a_wrong_folder_is_an_error_before_anything_is_read(tmp_path, configure):
    with pytest.raises(ModelNameError, match="no such folder"):
        Workspace.open(tmp_path / "library.sqlite", model=f"local/{tmp_path}/nothing")
