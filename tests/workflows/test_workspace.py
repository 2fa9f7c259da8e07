"""The Python interface: ask, Workspace, events, the answer as a value."""

import asyncio
import json
import time
from pathlib import Path

import pytest

import lcdoc
from lcdoc import DocumentError, Workspace
from lcdoc.workflows import events
from lcdoc.workflows.workflow import Budget

HANDBOOK = Path(lcdoc.__file__).parent / "examples" / "handbook.pdf"
QUESTION = "Why do the bell-ringers of Oddersley travel free?"


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "lamp.md"
    path.write_text("# Lamps\n\nThe lamp was lit on 4 March 1871. The first keeper was a retired rope maker.\n")
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return tmp_path_factory.mktemp("library") / "library.sqlite"


@pytest.fixture
def workspace(library):
    with Workspace.open(library, background=False) as opened:
        yield opened


def test_ask_answers_with_the_page(library):
    answer = lcdoc.ask(HANDBOOK, QUESTION, library=library)
    assert answer.found
    citation = answer.claims[0].citations[0]
    assert "only fog signal on that reach" in citation.quote
    assert citation.pages == (31,)
    assert citation.labels == ("23",)
    assert answer.document(citation.document_id).path == str(HANDBOOK)
    assert answer.passages_read <= answer.passages


def test_every_citation_is_a_slice_of_the_text(workspace):
    (document,) = workspace.read([HANDBOOK])
    answer = workspace.ask("How many passengers does the Bittern carry?", [document])
    assert answer.claims
    for claim in answer.claims:
        for citation in claim.citations:
            inside = [part.of(document.body) for part in citation.parts]
            assert " ".join(" ".join(inside).split()).replace("- ", "-") in citation.quote.replace(" \u2026", "")
            assert citation.pages == tuple(page.number for page in document.pages_of(citation.span))


def test_a_question_about_something_else_is_not_found(workspace):
    answer = workspace.ask("Which enzyme unwinds the DNA helix during replication?", workspace.read([HANDBOOK]))
    assert not answer.found
    assert answer.claims == ()
    assert answer.passages > 100


def test_the_same_file_is_parsed_once(workspace, library):
    seen = []
    workspace.read([HANDBOOK], on_event=seen.append)
    assert [event for event in seen if isinstance(event, events.Progress) and event.stage == "reading"] == []
    assert len(workspace.library.list()) == 1


def test_events_tell_the_story_and_end_with_the_answer(workspace):
    seen = []
    answer = workspace.ask(QUESTION, workspace.read([HANDBOOK]), on_event=seen.append)
    kinds = [type(event) for event in seen]
    assert kinds[:2] == [events.Chosen, events.Started]
    assert kinds[-1] is events.Answered
    assert events.PassagesFound in kinds
    assert events.NoteTaken in kinds
    assert seen[-1].answer == answer


def test_an_exhausted_budget_gives_a_partial_answer(workspace):
    answer = workspace.ask(QUESTION, workspace.read([HANDBOOK]), budget=Budget(seconds=0.0))
    assert answer.partial
    assert not answer.found


def test_json_is_plain_and_complete(workspace):
    documents = workspace.read([HANDBOOK])
    answer = workspace.ask(QUESTION, documents)
    value = json.loads(json.dumps(workspace.answer_json(answer, boxes=True)))
    assert value["schema"] == "lcdoc.answer/1"
    citation = value["claims"][0]["citations"][0]
    assert {box["page"] for box in citation["boxes"]} == {31}
    assert citation["headings"][0].startswith("6 ") or citation["headings"]
    documented = (HANDBOOK.parent.parent / "docs" / "json.md").read_text(encoding="utf-8")
    for field in [*value, *citation]:
        assert f"`{field}`" in documented or f"[].{field}`" in documented, field


def test_several_formats_are_several_documents(workspace, tmp_path):
    for name in ("handbook.epub", "handbook.docx", "handbook.html", "handbook.md", "handbook.txt"):
        documents = workspace.read([HANDBOOK.with_name(name)])
        answer = workspace.ask(QUESTION, documents)
        assert answer.found, name
        assert "fog signal" in answer.claims[0].citations[0].quote, name


def test_one_bad_file_of_several_is_left_out(workspace, tmp_path):
    bad = tmp_path / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 nothing")
    seen = []
    documents = workspace.read([HANDBOOK, bad], on_event=seen.append)
    assert len(documents) == 1
    assert [event.document for event in seen if isinstance(event, events.DocumentFailed)] == [str(bad)]
    with pytest.raises(DocumentError, match="damaged"):
        workspace.read([bad])


def test_asking_inside_an_event_loop_works(workspace):
    async def notebook():
        return workspace.ask(QUESTION, workspace.read([HANDBOOK]))

    assert asyncio.run(notebook()).found


def test_an_index_is_complete_after_fill(workspace):
    (document,) = workspace.read([HANDBOOK.with_name("handbook.md")])
    seen = []
    passages = workspace.fill(document, on_event=seen.append)
    assert passages == len(workspace.library.chunks(document.id))
    assert seen[-1].done == seen[-1].total
    seen.clear()
    workspace.fill(document, on_event=seen.append)
    assert not seen or seen[-1].total == 0


def test_asking_embeds_the_rest_in_the_background(tmp_path, story):
    with Workspace.open(tmp_path / "library.sqlite") as workspace:
        documents = workspace.read([story])
        assert workspace.ask("When was the lamp lit?", documents).found
        assert workspace.wait_for_background(timeout_s=60)
        assert workspace.ask("Who was the first keeper?", documents).found
        seen = []
        workspace.fill(documents[0], on_event=seen.append)
        assert not seen or seen[-1].total == 0


def test_closing_stops_the_background_work(tmp_path):
    start = time.monotonic()
    with Workspace.open(tmp_path / "library.sqlite") as workspace:
        workspace.ask(QUESTION, workspace.read([HANDBOOK]))
        closing = time.monotonic()
    assert time.monotonic() - closing < 10
    assert closing > start
    with Workspace.open(tmp_path / "library.sqlite", background=False) as workspace:
        assert workspace.library.verify() == []
