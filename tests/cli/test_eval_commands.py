"""`lcdoc eval`, as a user runs it; mostly in this process, since each of its own would load everything anew."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from lcdoc.cli import app
from lcdoc.tests.evaluation.sets_made import make_sets


@pytest.fixture
def lcdoc(tmp_path, monkeypatch):
    """Run `lcdoc` with these arguments."""
    monkeypatch.setenv("LCDOC_LIBRARY", str(tmp_path / "library" / "library.sqlite"))
    monkeypatch.delenv("LCDOC_EVAL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def data(tmp_path):
    make_sets(tmp_path / "sets")
    return tmp_path / "sets"


def test_a_set_is_asked_shown_compared_and_exported(lcdoc, data, tmp_path):
    run = lcdoc("eval", "squad", "--data", data, "--part", "all", "--split", "v2.0", "--workflow", "retrieve")
    assert run.exit_code == 0, run.stderr
    assert run.stdout.splitlines()[0] == "squad v2.0: shares in percent, with 95 % intervals"
    assert "3 questions about 2 documents" in run.stderr
    first, second, _ = run.stdout.splitlines()[-1].split()[1:]
    # Beside the user's own library, which is not there yet.
    assert [path.name for path in (tmp_path / "library").glob("*.sqlite")] == ["evaluation.sqlite"]
    listed = lcdoc("eval", "runs").stdout
    assert f"{first}  " in listed
    assert "done" in listed
    shown = lcdoc("eval", "show", first, "--wrong", "1").stdout
    assert "given: " in shown
    assert "difference" in lcdoc("eval", "compare", first, second).stdout
    assert lcdoc("eval", "export", first, second, "--markdown").stdout.startswith("|  | retrieve, offline |")
    refused = lcdoc("eval", "remove", first, "none")
    assert refused.exit_code == 2
    assert "no evaluation 'none'" in refused.stderr
    removed = lcdoc("eval", "remove", first, first[:6], second)
    assert (removed.exit_code, removed.stderr.splitlines()) == (0, [f"removed {first}", f"removed {second}"])
    assert not {first, second} & set(lcdoc("eval", "runs").stdout.split())
    assert f"no evaluation '{first}'" in lcdoc("eval", "show", first).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_table_fits_a_terminal_and_is_whole_in_a_pipe(lcdoc, environment, data, tmp_path):
    run = lcdoc("eval", "squad", "--data", data, "--part", "all", "--split", "v2.0", "--workflow", "first_sentence")
    runs = [run.stdout.splitlines()[-1].split()[1]] * 2
    assert max(map(len, lcdoc("eval", "compare", *runs).stdout.splitlines())) > 60
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "lcdoc", "eval", "compare", *runs]
    subprocess.run(command, env={**environment, "COLUMNS": "60"}, cwd=tmp_path, stdout=theirs, check=True)
    os.close(theirs)
    lines = os.read(ours, 1 << 16).decode().splitlines()
    os.close(ours)
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("F1  ") for line in lines) == 2


def test_needles_give_a_map_and_retrieval_a_sweep(lcdoc, data, tmp_path):
    needle = lcdoc(
        "eval", "needle", "--data", data, "--lengths", "300,900", "--depths", "0,100", "--workflow", "retrieve",
        "--out", tmp_path / "all.json",
    )  # fmt: skip
    assert needle.exit_code == 0, needle.stderr
    assert needle.stdout.splitlines()[-2:] == ["           0 %     100%     100%", "         100 %     100%     100%"]
    (kept,) = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert set(kept["items"]) == {"300/0/0", "300/100/0", "900/0/0", "900/100/0"}
    sweep = lcdoc("eval", "retrieval", "ohr_bench", "--data", data)
    assert sweep.exit_code == 0, sweep.stderr
    assert [line.split("  ")[0] for line in sweep.stdout.splitlines()[1:]] == [
        "BM25 alone",
        "vectors alone",
        "both, by reciprocal rank",
        "lcdoc's search in a new library, which has few vectors yet",
        "lcdoc's search, all vectors there",
    ]


@pytest.mark.parametrize(
    ("out", "said"), [("no/scores.md", "no is not a folder"), ("scores.txt", "scores.txt names no format of pictures")]
)
def test_where_results_go_is_looked_at_before_anything_is_asked(lcdoc, data, tmp_path, out, said):
    run = lcdoc("eval", "squad", "--data", data, "--part", "all", "--out", out)
    assert run.exit_code == 2
    assert said in run.stderr
    assert not (tmp_path / "library").exists()


def test_text_of_others_moves_no_cursor(lcdoc, tmp_path):
    (tmp_path / "lamp.md").write_text("The lamp was lit in 1871.", encoding="utf-8")
    (tmp_path / "own.csv").write_text("file,question,answer\nlamp.md,When \x1b[2J?,1871 \x1b]0;\n", encoding="utf-8")
    asked = lcdoc("eval", "own.csv", "--workflow", "first_sentence", "--no-baselines")
    assert asked.exit_code == 0, asked.stderr
    assert "1 document says little" in asked.stderr
    shown = lcdoc("eval", "show", asked.stdout.split()[-1], "--wrong", "1").stdout
    assert "right: 1871" in shown
    assert "\x1b" not in shown


def test_ctrl_c_keeps_what_is_done(environment, data, tmp_path):
    command = [sys.executable, "-m", "lcdoc", "eval", "tatqa", "--data", str(data), "--no-baselines"]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    library = tmp_path / "library" / "evaluation.sqlite"
    while time.monotonic() < deadline and not library.with_name("evaluation.sqlite.vectors").is_dir():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "answers are kept. The same command goes on" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("squad",), "the folder with the sets is not known; name it with --data, or with LCDOC_EVAL_DATA"),
        (("squat", "--data", "."), "there is no set 'squat', and no file of that name"),
        (("squad", "--data", "."), "is not there: squad is questions about paragraphs of Wikipedia"),
        (("needle", "--depths", "0,110"), "--depths are percent"),
        (("needle", "--lengths", "1k"), "--lengths '1k' is not a list of numbers"),
        (("show", "abcd"), "no evaluation 'abcd'"),
        (("export", "abcd"), "say what to write: --markdown, --csv or --plot FILE"),
    ],
)
def test_bad_input_is_one_line(lcdoc, arguments, said):
    run = lcdoc("eval", *arguments)
    assert run.exit_code == 2
    assert said in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert not run.stdout
