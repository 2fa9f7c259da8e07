"""`lcdoc trace`: what a run read, noted, dropped, merged and found contradicted, as a tree."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc.documents import load
from lcdoc.memory import Library
from lcdoc.retrieval.chunker import Chunker
from lcdoc.workflows.trace import Trace, trace

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook.pdf"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


class Recorder:
    """Records a run over the handbook, a piece a page, as the frame does it."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.document = load(HANDBOOK)
        library.add(self.document, Chunker().chunks(self.document), recipe=Chunker().recipe)
        named = [(self.document.id, self.document.name)]
        self.id = library.runs.start("Why do\nthe ringers travel free?", "map_reduce", "honest", named, {})
        self.places = [(self.document.id, page.start, page.end) for page in self.document.pages]
        self.tell("Pieces", places=self.places)

    def tell(self, kind: str, **fields: object) -> None:
        self.library.notebook.record(self.id, kind, fields)

    def note(self, name: str, *pieces: int, claim: str = "", pages: tuple[int, ...] = (), **others: object) -> None:
        fields = {"found": bool(claim), "quotes": len(pages), "dropped": 0, "confidence": 4.0, "unchanged": False}
        places = [self.places[piece - 1] for piece in pieces]
        self.tell(
            "NoteTaken",
            **{**fields, "name": name, "places": places, "of": [], "claim": claim, "pages": pages, **others},
        )

    def finish(self, **answer: object) -> Trace:
        value = {"found": True, "partial": False, "claims": [], **answer}
        self.library.runs.finish(self.id, "answered", answer=value)
        return trace(self.library, self.library.runs.find(self.id))


@pytest.fixture
def recorder(library: Library) -> Recorder:
    return Recorder(library)


def test_notes_lie_under_the_one_they_were_merged_into_and_the_rest_is_folded(recorder):
    recorder.tell("Chosen", workflow="map_reduce", reason="many places may answer")
    for piece in (3, 1, 2, 4, 5, 7, 8):
        recorder.note(f"read/{piece:04}", piece)
    recorder.note("read/0009", 9, claim="They wake the pilot.", pages=(9,))
    recorder.note("read/0006", 6, claim="They ring in fog.", pages=(6,), dropped=1)
    recorder.note(
        "merge/0001", claim="They ring in fog, which wakes the pilot.", pages=(6, 9), of=["read/0006", "read/0009"]
    )
    cited = [{"pages": [9], "quote": "q"}]
    found = recorder.finish(
        claims=[{"text": "They wake the pilot.", "citations": cited}, {"text": "So.", "citations": []}]
    )
    assert list(found.lines(80)) == [
        f"run {recorder.id}: map_reduce through honest, answered",
        "question: Why do the ringers travel free?",
        f"- cut into {len(recorder.places)} pieces",
        "- map_reduce chosen: many places may answer",
        "- pieces 1-5 (pages 1-5): nothing",
        "- pieces 7-8 (pages 7-8): nothing",
        "- 2 notes merged: They ring in fog, which wakes the pilot. (2 quotes on pages 6,",
        "  9)",
        "  - piece 6 (page 6): They ring in fog. (1 quote on page 6); 1 quote not in the",
        "    source, dropped",
        "  - piece 9 (page 9): They wake the pilot. (1 quote on page 9)",
        "- answer: 2 claims",
        "  - They wake the pilot. (page 9)",
        "  - So. (unsupported)",
    ]


def test_a_chain_stays_flat(recorder):
    recorder.note("read/0001", 1, claim="A.", pages=(1,))
    recorder.note("read/0002", 2, claim="A.", pages=(1,), of=["read/0001"], unchanged=True)
    recorder.note("read/0003", 3, claim="A.", pages=(1,), of=["read/0002"], unchanged=True)
    recorder.note("read/0004", 4, claim="A and B.", pages=(1, 4), of=["read/0003"])
    lines = list(recorder.finish(found=False).lines())
    assert lines[3:] == [
        "- piece 1 (page 1): A. (1 quote on page 1)",
        "- pieces 2-3 (pages 2-3): nothing",
        "- piece 4 (page 4): A and B. (2 quotes on pages 1, 4)",
        "- answer: not found",
    ]


def test_contradictions_failures_steps_and_going_on_are_told(recorder):
    recorder.tell("Conflict", claims=["In spring.", "In autumn."], pages=[[3], [9, 10]])
    recorder.tell("Settled", claims=["In spring.", "In autumn."], claim="In spring.", reason="page 9 is a rumour")
    recorder.tell("Settled", claims=["A.", "B."], claim=None, reason="")
    recorder.tell("PartFailed", message="model honest: it timed out")
    recorder.tell("Resumed", run_id=recorder.id, notes=1)
    recorder.tell("Stepped", action="enter", node="Ferries", reason="it names them")
    recorder.tell("PassagesFound", passages=recorder.places[2:4], searched=240)
    recorder.tell("Conditions", lcdoc="1")
    lines = list(recorder.finish(partial=True).lines())
    assert lines[3:] == [
        "- contradiction: In spring. (page 3) <> In autumn. (pages 9-10)",
        "- settled: In spring.; page 9 is a rumour",
        "- not settled",
        "- failed: model honest: it timed out",
        "- gone on with, 1 note kept",
        "- enter: Ferries (it names them)",
        "- 2 passages found among 240, on pages 3-4",
        "- partial answer: 0 claims",
    ]


def test_a_note_that_was_kept_but_not_told_is_shown_and_one_told_twice_is_shown_once(recorder):
    note = {"found": True, "quotes": [], "claim": "Kept.", "confidence": 1.0, "unchanged": False, "dropped": 0}
    kept = {"note": note, "places": [recorder.places[1]], "of": []}
    asyncio.run(recorder.library.notebook.keep(recorder.id, "read/0002", kept))
    asyncio.run(recorder.library.notebook.keep(recorder.id, "draft", {"found": False}))
    recorder.note("read/0001", 1)
    recorder.note("read/0001", 1, claim="Told again.", pages=(1,))
    lines = list(trace(recorder.library, recorder.library.runs.find(recorder.id)).lines())
    assert lines[3:] == [
        "- piece 1 (page 1): Told again. (1 quote on page 1)",
        "- piece 2 (page 2): Kept. (no quote)",
    ]


def test_without_the_document_there_are_pieces_and_no_pages(recorder):
    recorder.note("read/0001", 1)
    recorder.note("read/0002", 2)
    recorder.library.remove(recorder.document.id)
    assert "- pieces 1-2: nothing" in list(recorder.finish().lines())


def test_what_documents_say_cannot_move_the_cursor_or_pass_the_width(recorder):
    recorder.note("read/0001", 1, claim="\x1b[2J\r\n" + "word " * 60 + "x" * 200, pages=(1,))
    recorder.note("loop", of=["loop", "loop"])
    for width in (80, 40):
        lines = list(recorder.finish().lines(width))
        assert max(map(len, lines)) <= width
        assert all(line.isprintable() for line in lines)


def test_the_command_tells_of_a_real_run(lcdoc, story, environment):
    lcdoc("ask", story, "How many passengers does the ferry Otterling carry?")
    with Library.open(environment["LCDOC_LIBRARY"]) as library:
        (run,) = library.runs.list()
    shown = lcdoc("trace", run.id[:10])
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"run {run.id}: retrieve through offline, answered\n")
    assert "answer: 1 claim - ninety (page 1)" in " ".join(shown.stdout.split())
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "\x1b" not in shown.stdout
    value = json.loads(lcdoc("trace", run.id, "--json").stdout)
    assert value["run"]["id"] == run.id
    assert {"found", "read", "answer"} <= {step["kind"] for step in value["steps"]}
    unknown = lcdoc("trace", "zzzz")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
