"""How far a job is, as a user sees it."""

import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console

from lcdoc.commands.batch_view import BatchView, duration, picture, status_line
from lcdoc.jobs.job import Caps
from lcdoc.memory.job_records import DocumentCost, JobRecord, JobStatus, JobWorker
from lcdoc.memory.usage import ModelUsage
from lcdoc.screen import Screen

MOMENT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
RECORD = JobRecord("3f2a91bc", "contracts", {}, 3, 3, "open", "", "", MOMENT, MOMENT)
STATUS = JobStatus(
    job=RECORD,
    documents={"waiting": 190, "preparing": 10, "ready": 310, "failed": 2},
    tasks={"waiting": 700, "running": 35, "done": 796, "failed": 5, "cancelled": 0},
    pages=14_210,
    characters=30_000_000,
    usage=ModelUsage(calls=1204, tokens_in=3_000_000, tokens_out=120_440, cost_usd=1.23, seconds=900.0),
    known_usd=1.23,
    reading_s=600.0,
    answering_s=900.0,
    documents_per_minute=9.4,
    tasks_per_minute=27.0,
    slowest=(DocumentCost(7, "/d/a\x1b[2Jnnual [bold]report[red] \u202eof 2019 " + "x" * 60 + ".pdf", 412, 102.0),),
    workers=tuple(JobWorker(f"w{n}", "host", n, MOMENT, MOMENT, "asking\nlease.pdf") for n in range(6)),
)


def lines_of(status, width=80, **options):
    return [line.plain for line in picture(status, width, **options)]


def test_a_picture_fits_the_terminal():
    lines = lines_of(STATUS, caps=Caps(usd=20))
    assert lines == [
        "read      ██████████████░░░░░░░░░░  312 of 512 documents, 14,210 pages, 2 failed",
        "answered  ████████████░░░░░░░░░░░░  801 of 1,536, 5 failed",
        "          9.4 documents and 27 answers a minute, about 27 min left",
        "spent     $1.23 of $20.00, 1,204 calls, 3,120,440 tokens",
        "slowest   2 min  a [2Jnnual [bold]report[red] of 2019 xx… (412 pages)",
        "workers   w0: asking lease.pdf",
        "          w1: asking lease.pdf",
        "          w2: asking lease.pdf",
        "          w3 (and 2 more): asking lease.pdf",
    ]
    assert all(len(line) <= 40 for line in lines_of(STATUS, 40))
    assert lines_of(STATUS, ascii_only=True)[0].startswith("read      ##############..........  312")


def test_a_line_says_the_same_without_a_terminal():
    assert status_line(STATUS, Caps(usd=20)) == (
        "312 of 512 documents read (2 failed), 801 of 1,536 answers (5 failed), 9.4 documents and 27 answers a minute,"
        " $1.23 of $20.00, 1,204 calls, 3,120,440 tokens, about 27 min left"
    )
    paused = replace(STATUS, job=replace(RECORD, state="paused", reason="the cap of $20 is\nreached"))
    assert status_line(paused).endswith("3,120,440 tokens, paused: the cap of $20 is reached")
    unpriced = replace(STATUS, usage=replace(STATUS.usage, cost_usd=None))
    assert "at least $1.23, 1,204 calls" in status_line(unpriced)


def test_a_job_that_has_just_begun_divides_by_nothing():
    nothing = replace(
        STATUS,
        documents=dict.fromkeys(STATUS.documents, 0),
        tasks=dict.fromkeys(STATUS.tasks, 0),
        usage=ModelUsage(),
        known_usd=0.0,
        pages=0,
        documents_per_minute=0.0,
        tasks_per_minute=0.0,
        slowest=(),
        workers=(),
    )
    assert [line.split("  ")[-1] for line in lines_of(nothing)] == ["0 of 0 documents", "0 of 0"]
    assert status_line(nothing) == "0 of 0 documents read, 0 of 0 answers"


def test_lines_come_by_time_and_a_terminal_is_left_as_it_was():
    screen, told = Screen(), io.StringIO()
    screen.err = Console(file=told, width=200, highlight=False)
    now = [0.0]
    with BatchView(screen, clock=lambda: now[0]) as view:
        for second in range(100):
            now[0] = float(second)
            view.update(STATUS)
    said = told.getvalue().splitlines()
    assert len(said) == 4
    assert all("312 of 512 documents read" in line for line in said)
    screen.err = Console(file=(drawn := io.StringIO()), width=80, height=24, force_terminal=True)
    with BatchView(screen) as view:
        view.update(STATUS)
        view.stop()
        view.update(STATUS)
    text = drawn.getvalue()
    assert "801 of 1,536" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2
    assert "\x1b[2Jnnual" not in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0.4 s"), (42, "42 s"), (100, "2 min"), (3600, "60 min"), (19_200, "5 h 20 min"), (187_200, "2 days 4 h")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
