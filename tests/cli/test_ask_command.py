"""`lcdoc ask` from the outside: answers, exit codes, one-line errors, nothing but the answer on standard output."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_an_answer_with_its_quote(lcdoc, story):
    run = lcdoc("ask", story, "How many passengers does the ferry Otterling carry?")
    assert run.returncode == 0, run.stderr
    assert "The ferry Otterling carries ninety passengers and six carts." in run.stdout
    assert "The ferries" in run.stdout
    assert "offline, by extraction (no language model)" in run.stderr
    assert "\x1b" not in run.stdout


def test_quiet_prints_the_answer_alone(lcdoc, story):
    run = lcdoc("ask", story, "How many passengers does the ferry Otterling carry?", "--quiet")
    assert "ninety passengers" in run.stdout
    assert run.stderr == ""


def test_json_names_the_place(lcdoc, story):
    run = lcdoc("ask", story, "When was the lamp lit for the first time?", "--json")
    answer = json.loads(run.stdout)
    assert answer["schema"] == "lcdoc.answer/1"
    assert answer["found"] is True
    assert answer["model"] == "offline"
    citation = answer["claims"][0]["citations"][0]
    text = story.read_text(encoding="utf-8")
    span = citation["span"]
    assert "4 March 1871" in text[span["start"] : span["end"]]
    assert citation["pages"] == [1]
    assert citation["status"] == "exact"
    assert citation["headings"] == ["The Lamp at the North Pier"]
    assert answer["documents"][0]["path"] == str(story)


def test_not_found_is_exit_code_1(lcdoc, story):
    run = lcdoc("ask", story, "What is the capital adequacy ratio of the central bank?")
    assert run.returncode == 1
    assert run.stdout.startswith("Not found in The Lamp at the North Pier")


def test_a_folder_and_a_broken_file_in_it(lcdoc, story, tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing follows")
    run = lcdoc("ask", tmp_path, "How many passengers does the ferry Bittern carry?")
    assert run.returncode == 0
    assert "forty passengers only" in run.stdout
    assert "broken.pdf: the PDF is damaged" in run.stderr


def test_standard_input(lcdoc):
    run = lcdoc(
        "ask", "-", "Where does the mill stand?", stdin="The old mill stands below the weir. It has two wheels."
    )
    assert run.returncode == 0, run.stderr
    assert "The old mill stands below the weir." in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pdf", "Why?"], "lcdoc: missing.pdf: no such file or folder; check the path"),
        (["lmap.md", "Why?"], "lcdoc: lmap.md: no such file or folder; did you mean lamp.md?"),
        (["lamp.md"], 'lcdoc: the question is missing; try: lcdoc ask lamp.md "your question"'),
        (["Why is it so?"], 'lcdoc: the file is missing; try: lcdoc ask FILE "your question"'),
        (["lamp.md", "  "], "lcdoc: the question is empty"),
        (["empty.txt", "Why?"], "lcdoc: empty.txt: "),
        (["old.doc", "Why?"], "lcdoc: old.doc: "),
        (["lamp.md", "Why?", "--embedder", "no/such-model"], "lcdoc: embedder no/such-model: "),
        (["lamp.md", "Why?", "--library", "lamp.md"], "lcdoc: "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(lcdoc, story, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "old.doc").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(2000))
    run = lcdoc("ask", *arguments)
    assert run.returncode == 2, run.stderr
    assert run.stdout == ""
    assert run.stderr.startswith(message)
    assert run.stderr.count("\n") == 1


def test_debug_shows_the_traceback(lcdoc, tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing follows")
    run = lcdoc("ask", "broken.pdf", "Why?", "--debug")
    assert "Traceback" in run.stderr
    assert "CorruptFileError" in run.stderr


def test_the_second_question_reads_nothing_again(lcdoc, story):
    lcdoc("ask", story, "Who was the first keeper?")
    run = lcdoc("library", "list", "--json")
    (entry,) = json.loads(run.stdout)
    assert entry["paths"] == [str(story)]
    lcdoc("ask", story, "What was her wage?")
    assert json.loads(lcdoc("library", "list", "--json").stdout)[0]["added_at"] == entry["added_at"]
    story.write_text(story.read_text(encoding="utf-8") + "\nThe bell is of bronze.\n", encoding="utf-8")
    assert "The bell is of bronze." in lcdoc("ask", story, "What is the bell made of?").stdout
    assert len(json.loads(lcdoc("library", "list", "--json").stdout)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.5, 1.0])
def test_ctrl_c_leaves_the_library_sound(lcdoc, environment, tmp_path, after_s):
    long = tmp_path / "long.txt"
    long.write_text("\n\n".join(f"Fact {n}: the barge {n} carries {n * 7} sacks of oats." for n in range(20_000)))
    command = [sys.executable, "-m", "lcdoc", "index", str(long)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    library = Path(environment["LCDOC_LIBRARY"])
    while not library.exists() and process.poll() is None:
        time.sleep(0.01)  # until then the interpreter may still be starting, which nobody can guard
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert stderr == "lcdoc: interrupted; what was read is kept. The same command goes on where it was\n"
    assert lcdoc("library", "verify").returncode == 0
    small = tmp_path / "small.txt"
    small.write_text("The bell is of bronze.")
    assert lcdoc("ask", small, "What is the bell made of?").returncode == 0


def test_a_reader_that_leaves_early_is_no_error(environment, story):
    command = f"{sys.executable} -m lcdoc ask {story} 'Who was the first keeper?' --json | head -c 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in run.stderr
    assert "BrokenPipe" not in run.stderr
