"""`lcdoc summarize` from the outside: paragraphs with pages, exit codes, one-line errors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import lcdoc as package

HANDBOOK = Path(package.__file__).parent / "examples" / "handbook.pdf"
Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_summary_is_paragraphs_under_the_sections(lcdoc: Command, story: Path) -> None:
    run = lcdoc("summarize", story, "--words", 100)
    assert run.returncode == 0, run.stderr
    paragraphs = run.stdout.strip().split("\n\n")
    titles = [paragraph.split("\n")[0] for paragraph in paragraphs]
    assert titles == ["The Lamp at the North Pier", "The keepers", "The ferries"]
    text = " ".join(story.read_text(encoding="utf-8").split())
    for paragraph in paragraphs:
        assert paragraph.split("\n")[1].split(". ")[0] in text
    assert "of 3 sections" in run.stderr
    assert "offline, by extraction" in run.stderr
    assert "\x1b" not in run.stdout


def test_json_has_the_length_and_the_coverage(lcdoc: Command, story: Path) -> None:
    run = lcdoc("summarize", story, "--words", 25, "--json", "--quiet")
    answer = json.loads(run.stdout)
    assert run.stderr == ""
    assert answer["schema"] == "lcdoc.summary/1"
    assert answer["question"] == "Summarize in 25 words"
    assert answer["words_asked"] == 25
    assert answer["words"] == sum(len(claim["text"].split()) for claim in answer["claims"])
    told = [section for section in answer["sections"] if section["covered"]]
    assert answer["coverage"] == pytest.approx(len(told) / 3, abs=0.001)
    assert len(answer["uncovered"]) == 3 - len(told)


def test_a_focus_says_what_it_is_about(lcdoc: Command, story: Path) -> None:
    run = lcdoc("summarize", story, "--focus", "passengers of the ferries")
    assert run.returncode == 0, run.stderr
    assert "passengers" in run.stdout
    assert "barrel" not in run.stdout
    nothing = lcdoc("summarize", story, "--focus", "capital adequacy ratios")
    assert nothing.returncode == 1
    assert nothing.stdout == "Nothing to summarise was found.\n"


def test_an_estimate_reads_and_sends_nothing(lcdoc: Command, story: Path) -> None:
    run = lcdoc("summarize", story, "--estimate")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("offline: 0 calls")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "lcdoc: the file is missing; try: lcdoc summarize FILE"),
        (["missing.pdf"], "lcdoc: missing.pdf: no such file or folder; check the path"),
        (["lamp.md", "--words", "5"], "lcdoc: --words 5 is not from 20 to 20,000"),
        (["lamp.md", "--no-cache", "--refresh"], "lcdoc: --no-cache and --refresh exclude each other"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(lcdoc: Command, story: Path, arguments: list[str], message: str) -> None:
    run = lcdoc("summarize", *arguments)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == 1
