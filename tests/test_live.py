"""The live view: drawn into a recorded console from events, as a terminal would show it."""

import io
import re

import pytest
from rich.console import Console

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.notes import Claim
from lcdoc.agents.quotes import Citation
from lcdoc.documents import Span
from lcdoc.live import LiveView, Strip, evidence_line
from lcdoc.screen import Screen
from lcdoc.workflows.answer import Answer, DocumentRef, PagesRead, Usage
from lcdoc.workflows.events import (
    Answered,
    Chosen,
    Conflict,
    NoteTaken,
    PartFailed,
    Partial,
    PassagesFound,
    Pieces,
    Resumed,
    Spent,
    Started,
)

PIECES = tuple(("doc", start, start + 100) for start in range(0, 2_000, 100))
ESCAPE = "\x1b"


def note(number: int, claim: str = "", *, name: str = "", unchanged: bool = False) -> NoteTaken:
    return NoteTaken(
        found=bool(claim),
        quotes=bool(claim),
        dropped=0,
        name=name or f"read/{number:04}",
        places=(PIECES[number],),
        claim=claim,
        pages=(number + 1,) if claim else (),
        unchanged=unchanged,
    )


def drawn(view: LiveView, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor")
    console.print(view)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).rstrip("\n").split("\n")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_strip_colours_in_as_pieces_are_read():
    view = LiveView()
    view.handle(Pieces(PIECES))
    assert drawn(view)[0] == "·" * 60
    view.handle(note(0))
    view.handle(note(19, "The mill burned."))
    assert drawn(view)[0] == "░" * 3 + "·" * 54 + "█" * 3


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_wider_than_the_terminal(width):
    view = LiveView()
    view.handle(Pieces(tuple(("doc", start, start + 1) for start in range(1_000))))
    for number in range(12):
        view.handle(
            note(
                number, f"A claim of many words, number {number}, with 漢字 in it, that no narrow screen has room for."
            )
        )
    view.handle(Conflict(("It burned in spring.", "It burned in autumn."), ((3,), (9, 10))))
    view.handle(Spent(Usage(calls=12, tokens_in=120_000, tokens_out=9_000, cost_usd=0.1234), Budget(usd=2.0)))
    view.handle(PartFailed("model test: " + "x" * 200))
    lines = drawn(view, width)
    console = Console(width=width)
    assert all(console.measure(line).maximum <= width for line in lines)
    assert len(lines) > 5


def test_many_pieces_share_the_columns():
    strip = Strip()
    strip.lay_out([("doc", start, start + 1) for start in range(1_000)])
    for start in range(500):
        strip.mark(("doc", start, start + 1), found=False)
    strip.mark(("doc", 999, 1_000), found=True)
    text = strip.text(100).plain
    assert text == "░" * 50 + "·" * 49 + "█"
    strip.mark(("doc", 505, 506), found=False)
    assert strip.text(100).plain[50] == "▒"
    assert strip.text(100, ascii_only=True).plain[48:52] == "==-."
    assert strip.read == 502


def test_a_note_on_a_part_of_a_piece_colours_the_piece():
    strip = Strip()
    strip.lay_out([("a", 0, 100), ("a", 100, 200), ("b", 0, 100)])
    strip.mark(("a", 120, 130), found=True)
    strip.mark(("b", 50, 60), found=False)
    assert strip.text(3).plain == "·█░"
    strip.mark(("a", 90, 110), found=False)
    assert strip.text(3).plain == "░█░"


def test_passages_of_a_wider_search_join_those_before():
    view = LiveView()
    view.handle(PassagesFound((PIECES[5], PIECES[2]), searched=20))
    view.handle(note(5, "The mill burned."))
    view.handle(PassagesFound((PIECES[9],), searched=20))
    assert drawn(view)[0] == "····████····"


def test_notes_appear_with_their_page_and_unchanged_ones_do_not():
    view = LiveView()
    view.handle(Pieces(PIECES))
    view.handle(note(6, "The mill burned in 1871."))
    view.handle(note(7, "The mill burned in 1871.", unchanged=True))
    lines = drawn(view)
    assert [line for line in lines if "burned" in line] == ["p. 7: The mill burned in 1871."]
    assert lines[0][21:24] == "░░░"
    assert "1 note," in lines[1]


def test_tokens_money_and_time_run():
    clock = Clock()
    view = LiveView(clock=clock)
    view.handle(Pieces(PIECES))
    clock.now += 75
    view.handle(Spent(Usage(calls=3, tokens_in=5_000, tokens_out=210, cost_usd=0.0031), Budget(usd=0.5)))
    assert drawn(view)[1] == "0 of 20 pieces, $0.0031 of $0.5000, 5,210 tokens, 1:15"
    assert drawn(view, 40)[1] == "0 of 20 pieces, $0.0031 of $0.5000, 1:15"
    assert drawn(view, 12)[1].strip() == "1:15"


def test_the_answer_is_shown_as_it_is_written_within_the_height():
    view = LiveView()
    view.handle(Pieces(PIECES))
    view.handle(Partial("\n".join(f"Sentence {number}." for number in range(100)) + f"{ESCAPE}[2Jend"))
    lines = drawn(view, height=10)
    assert len(lines) <= 10
    assert lines[-1] == "Sentence 99. [2Jend"


def test_what_was_read_before_a_run_was_cut_off_is_coloured_in():
    view = LiveView()
    view.handle(Resumed("run", 2, PIECES, read=PIECES[:2], found=PIECES[:1]))
    lines = drawn(view)
    assert lines[0].startswith("███░░░···")
    assert lines[1].startswith("2 of 20 pieces, 2 notes")


def citation(start: int, pages: tuple[int, ...]) -> Citation:
    return Citation(
        document_id="doc",
        span=Span(start, start + 10),
        parts=(Span(start, start + 10),),
        quote="q",
        pages=pages,
        labels=(),
        headings=(),
        status="exact",
        score=100.0,
    )


def answer_with(*citations: Citation, pages: int) -> Answer:
    ref = DocumentRef(id="doc", name="book.pdf", path="book.pdf", pages=pages, characters=2_000)
    read = PagesRead(document_id="doc", read=((1, 10),), unread=((11, pages),))
    claims = (Claim(text="c", citations=citations),)
    return Answer(
        question="q", found=True, claims=claims, workflow="w", model="m", documents=(ref,), pages_read=(read,)
    )


@pytest.mark.parametrize("width", [40, 80])
def test_the_evidence_line_shows_where_the_answer_stands(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    line = evidence_line(answer_with(citation(50, (3,)), citation(900, (18, 19)), pages=20), console)
    strip, _, label = line.plain.partition(" ")
    assert label == "pages 3, 18, 19"
    assert len(line.plain) <= width
    if width == 80:
        assert [strip[3 * page] for page in (0, 2, 9, 10, 17, 18, 19)] == ["░", "█", "░", "·", "█", "█", "·"]
    assert strip.count("█") == 3 * (len(strip) // 20)


def test_the_evidence_line_of_a_document_without_pages_goes_by_place():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    line = evidence_line(answer_with(citation(0, (1,)), citation(1_985, (1,)), pages=1), console)
    assert line.plain.startswith("█·")
    assert line.plain.endswith("·█ book.pdf")
    assert evidence_line(answer_with(pages=1), console) is None


@pytest.fixture
def screen(monkeypatch):
    def make(*, terminal: bool, quiet: bool = False) -> Screen:
        made = Screen(quiet=quiet)
        made.err = Console(file=io.StringIO(), force_terminal=terminal, width=80, height=24)
        return made

    return make


def play(screen: Screen) -> str:
    with screen:
        for event in (
            Started("q", ("doc",), "chain", "run7"),
            Chosen("chain", "the facts are told apart"),
            Pieces(PIECES),
            note(0, "The mill burned."),
            PartFailed("model test: it timed out"),
            Partial("The mill"),
        ):
            screen.handle(event)
        answer = answer_with(citation(50, (3,)), pages=20)
        screen.handle(Answered(answer))
        screen.out = Console(file=io.StringIO())
        screen.answer(answer)
    assert screen.run_id == "run7"
    return screen.err.file.getvalue()


def test_a_terminal_is_drawn_on_and_left_with_the_evidence_line(screen):
    output = play(screen(terminal=True))
    assert "The mill burned." in output or "The mill" in output
    last = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).split("\n") if "page 3" in line]
    assert len(last) == 1
    assert "█" in last[0]
    assert f"{ESCAPE}[?25h" in output[output.index(f"{ESCAPE}[?25l") :]


def test_without_a_terminal_there_are_plain_lines(screen, monkeypatch):
    monkeypatch.setattr("lcdoc.screen._LINE_EVERY_S", 0.0)
    output = play(screen(terminal=False))
    assert ESCAPE not in output
    assert "chain: the facts are told apart\n" in output
    assert "1 of 20 pieces, 1 note, 0:00\n" in output
    assert "█" not in output


def test_quiet_shows_nothing(screen):
    assert play(screen(terminal=True, quiet=True)) == ""
    assert play(screen(terminal=False, quiet=True)) == ""
