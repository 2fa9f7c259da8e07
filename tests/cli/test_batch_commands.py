"""`lcdoc batch`, as a user runs it; mostly in this process, since each of its own would load everything anew."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from lcdoc.cli import app
from lcdoc.commands.batch_job import job_of
from lcdoc.commands.batch_options import JobOptions
from lcdoc.jobs.begin import begin
from lcdoc.jobs.job import Job
from lcdoc.memory import Library


@pytest.fixture
def lcdoc(tmp_path, monkeypatch):
    """Run `lcdoc batch` with these arguments."""
    monkeypatch.setenv("LCDOC_LIBRARY", str(tmp_path / "library.sqlite"))
    monkeypatch.setenv("LCDOC_SHARED", "")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **more: CliRunner().invoke(app, ["batch", *map(str, arguments)], **more)


@pytest.fixture
def folder(story, tmp_path):
    """A folder with a document, one that is encrypted, and what is none."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "lamp.md").write_bytes(story.read_bytes())
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\n1 0 obj\n")
    (folder / "sheet.xlsx").write_bytes(b"PK")
    (tmp_path / "q.csv").write_text(
        "id,question\nlit,When was the lamp lit?\nferry,How many passengers does the ferry Otterling carry?\n",
        encoding="utf-8",
    )
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_asked_gone_on_with_and_exported(lcdoc, folder, tmp_path):
    command = ("docs", "--ask", "q.csv", "--out", "results", "--csv", "--workers", "1")
    run = lcdoc(*command)
    assert run.exit_code == 3, run.stderr
    assert not run.stdout
    said = " ".join(run.stderr.split())
    assert "2 documents, 2 tasks each" in said
    assert "passed over in folders: 1 .xlsx" in said
    assert "2 answers, 2 of them with something found, from 2 documents" in said
    assert "2 answers failed: " in said
    assert "results/results.jsonl" in said.replace(" ", "")
    rows = rows_of(tmp_path / "results" / "results.jsonl")
    assert [(row["document"]["name"], row["task"]["id"], bool(row["error"])) for row in rows] == [
        ("broken.pdf", "lit", True),
        ("broken.pdf", "ferry", True),
        (rows[2]["document"]["name"], "lit", False),
        (rows[2]["document"]["name"], "ferry", False),
    ]
    assert "1871" in rows[2]["answer"]
    assert rows[2]["claims"][0]["citations"][0]["pages"] == [1]
    table = list(csv.DictReader((tmp_path / "results" / "results.csv").open(encoding="utf-8-sig", newline="")))
    assert [row["task"] for row in table] == ["lit", "ferry", "lit", "ferry"]

    (folder / "second.md").write_text("The lamp was lit again on 5 May 1902.", encoding="utf-8")
    again = lcdoc(*command, "--retry-failed")
    said = " ".join(again.stderr.split())
    assert "2 failed answers are tried again" in said
    assert again.exit_code == 3
    assert "going on with job" in said
    assert "with 1 new document: 4 of 6 answers are there" in said
    assert len(rows_of(tmp_path / "results" / "results.jsonl")) == 6

    job = rows[0]["job"]
    listed = lcdoc("list").stdout
    assert listed.startswith(job)
    assert "6 of 6 answers, 2 failed" in listed
    shown = lcdoc("status").stdout
    assert "finished" in shown
    assert "3 of 3 documents" in shown
    status = json.loads(lcdoc("status", job, "--json").stdout)
    assert (status["tasks"]["done"], status["unfinished"]) == (4, 0)
    exported = lcdoc("export", job[:4])
    assert len(exported.stdout.splitlines()) == 6
    assert lcdoc("export", job, "--out", "all.parquet").exit_code == 0
    assert (tmp_path / "all.parquet").read_bytes()[:4] == b"PAR1"
    nothing_left = lcdoc("resume", job, "--workers", "1")
    assert nothing_left.exit_code == 3
    assert "2 answers failed: " in nothing_left.stderr
    assert "removed" in lcdoc("remove", job).stderr
    assert "no job" in lcdoc("status", job).stderr


def begun():
    """A job that nobody works at."""
    with Library.open() as library:
        return begin(library, Job(documents=("docs",), tasks=({"question": "Who?"},))).record.id


def test_a_job_is_paused_resumed_cancelled_and_added_to(lcdoc, folder):
    job = begun()
    assert f"job {job} is paused; to go on: lcdoc batch resume {job}" in lcdoc("pause", job).stderr
    assert f"job {job} is paused already" in lcdoc("pause", job).stderr
    (folder / "more.md").write_text("More.", encoding="utf-8")
    added = " ".join(lcdoc("add", job, "docs").stderr.split())
    assert f"1 document added to job {job} passed over in folders: 1 .xlsx" in added
    assert f"nobody is at it; to go on: lcdoc batch resume {job}" in added
    assert "0 documents added" in lcdoc("add", job, "-", input="docs/more.md\n").stderr
    assert "is cancelled; its rows stay" in lcdoc("cancel", job).stderr
    shown = lcdoc("status", job).stdout
    assert "cancelled" in shown.splitlines()[0]
    assert "0 of 3 documents" in shown
    with Library.open() as library:
        library.jobs.resume(job)
        library.jobs.register(job, worker="w1", doing="asking \x1b[2J[bold]lamp.md")
    shown = lcdoc("status", job).stdout
    assert "w1: asking [2J[bold]lamp.md" in shown
    assert "\x1b" not in shown
    at_it = lcdoc("resume", job)
    assert at_it.exit_code == 0
    assert f"1 worker is at job {job}" in at_it.stderr
    refused = lcdoc("remove", job)
    assert refused.exit_code == 2
    assert f"first: lcdoc batch cancel {job}" in refused.stderr


def test_a_plan_tells_what_a_job_takes_and_the_job_is_saved(lcdoc, folder, tmp_path):
    asked = ("docs", "--ask", "q.csv", "--max-cost", "5", "--password", "hush")
    run = lcdoc("plan", *asked, "--workers", "1", "--save-job", "job.toml")
    assert run.exit_code == 0, run.stderr
    lines = dict(line.split(maxsplit=1) for line in run.stdout.splitlines() if not line.startswith(" "))
    assert lines["documents"].startswith("2 (")
    assert lines["documents"].endswith("all read, 1 of which cannot be")
    assert (lines["pages"], lines["model"]) == ("1", "offline")
    assert lines["answers"] == "4 (2 for each document)"
    assert "with 1 worker" in lines["time"]
    assert "cannot be read: " in run.stderr
    text = (tmp_path / "job.toml").read_text(encoding="utf-8")
    assert 'documents = ["docs"]' in text
    assert "hush" not in text
    job = Job.load(tmp_path / "job.toml")
    assert (job.caps.usd, [task.id for task in job.tasks], job.model) == (5, ["lit", "ferry"], "offline")
    plain = json.loads(lcdoc("plan", "--job", "job.toml", "--sample", "1", "--json").stdout)
    assert (plain["documents"], plain["sampled"], plain["skipped"]) == (2, 1, {".xlsx": 1})


def test_options_go_before_a_job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('documents = ["docs"]\n[caps]\nusd = 5\n[[tasks]]\nquestion = "Who?"\n', encoding="utf-8")
    job = job_of(JobOptions(job_file=path, max_calls=9, model="ollama/qwen3:8b", paths=["other"], refresh=True))
    assert (job.caps.usd, job.caps.calls, job.model, job.documents) == (5, 9, "ollama/qwen3:8b", ("other",))
    assert (job.store, job.tasks[0].question) == ("refresh", "Who?")


def test_ctrl_c_keeps_what_is_done_and_says_what_goes_on(environment, folder, tmp_path):
    for number in range(200):
        (folder / f"{number}.md").write_text(f"Lamp {number} was lit in {1700 + number}.", encoding="utf-8")
    command = [sys.executable, "-m", "lcdoc", "batch", "docs", "--ask", "q.csv", "--out", "results", "--workers", "1"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    results = tmp_path / "results" / "results.jsonl"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (results.is_file() and results.stat().st_size > 1000):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopping: what is under way is given back" in said
    rows = rows_of(results)
    assert 0 < len(rows) < 400
    job = rows[0]["job"]
    assert f"{len(rows)} of 404 answers are kept. The same command goes on, or: lcdoc batch resume {job}" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("docs",), "nothing is asked; try: lcdoc batch contracts/ --ask questions.txt"),
        (("--ask", "Who?"), "the documents are missing; try: lcdoc batch"),
        (("dcos", "--ask", "Who?"), "dcos: no such file or folder; did you mean"),
        (("docs", "--ask", "q.txt"), "q.txt is not there; name a file of questions"),
        (("docs", "--ask", "Who?", "--workflow", "trea"), "there is no workflow 'trea'; did you mean tree"),
        (("docs", "--workflow", "tree", "--summarize"), "--workflow is how questions are answered"),
        (("docs", "--summarize", "--words", "5"), "--words 5 is not from 20 to 20,000"),
        (("docs", "--ask", "Who?", "--words", "50"), "--words and --about are of a summary; add --summarize"),
        (("docs", "--extract", "no.json"), "no.json: No such file or directory"),
        (("docs", "--ask", "Who?", "--csv"), "--csv writes into the folder of --out; name one"),
        (("docs", "--ask", "Who?", "--out", "q.csv"), "q.csv is a file; name a folder with --out"),
        (("docs", "--ask", "Who?", "--on", "k8s"), "--on k8s is no cluster; try --on ray"),
        (("docs", "--ask", "Who?", "--on", "ray", "--workers", "2"), "--workers is for this machine"),
        (("docs", "--ask", "Who?", "--shared", "mysql://x"), "--shared: not the URL of a PostgreSQL database"),
        (("docs", "--ask", "Who?", "--no-cache", "--refresh"), "--no-cache and --refresh exclude each other"),
        (("docs", "--ask", "Who?", "--model", "openai/gpt-4.1-mini"), "OPENAI_API_KEY is not set"),
        (("--job", "no.toml"), "no.toml cannot be read (No such file or directory)"),
        (("--job", "q.csv"), "q.csv is not TOML"),
        (("-", "--ask", "Who?", "--save-job", "job.toml"), "a list on standard input is in no job file"),
        (("@none.txt", "--ask", "Who?"), "the list"),
        (("@list", "--ask", "Who?"), "the list"),
        (("staus",), "staus is no command and no file; did you mean lcdoc batch status?"),
        (("status",), "there is no job yet; try: lcdoc batch contracts/"),
        (("status", "abcd"), "no job 'abcd'"),
        (("export", "abcd", "--out", "rows.xlsx"), "rows.xlsx has no suffix that names a format"),
        (("export", "abcd", "--format", "parquet"), "Parquet is no text; name a file with --out"),
    ],
)
def test_bad_input_is_one_line_and_begins_nothing(lcdoc, folder, monkeypatch, arguments, said):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    run = lcdoc(*arguments, input="docs/lamp.md\n")
    assert run.exit_code == 2, run.stderr
    assert said in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert not run.stdout
    monkeypatch.setenv("LCDOC_SHARED", "")
    with Library.open() as library:
        assert library.jobs.list() == []


def test_help_teaches_by_example(lcdoc):
    shown = " ".join(lcdoc("run", "--help").stdout.split())
    assert 'lcdoc batch contracts/ --ask "When does the lease end?" --out results/' in shown
    assert "--max-cost-per-document" in shown
    group = " ".join(lcdoc("--help").stdout.split())
    for command in ("run", "plan", "status", "list", "export", "pause", "resume", "cancel", "add", "work", "remove"):
        assert f" {command} " in group
