"""`lcdoc kv`, and `--kv` for a model that runs in process."""

import json

import pytest
from typer.testing import CliRunner

from lcdoc.cli import app
from lcdoc.tests.agents.models.local_checkpoint import save_terse

QUESTION = "How many passengers may the ferry Bittern carry?"


@pytest.fixture
def kv(monkeypatch, tmp_path):
    """`lcdoc kv` in this process, which has the engine's libraries loaded."""
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("LCDOC_MODELS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(app, ["kv", *map(str, arguments)])


def test_parts_are_listed_with_a_line_each(kv):
    listed = kv("list")
    assert listed.exit_code == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert lines[0] == "scorers: which entries of the cache matter"
    assert all(len(line) <= 80 for line in lines)
    for name in ("snapkv", "kvzip+", "ada", "d2o-layers", "kvmerger", "match"):
        assert sum(line.split()[:1] == [name] and len(line) > 40 for line in lines) == 1
    # What needs a second reading stands under a line that says so.
    assert lines.index("  needs a second reading of the text, and no question") + 1 == next(
        number for number, line in enumerate(lines) if line.startswith("    kvzip ")
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("snapkv:widow=64@0.25",), "snapkv has no option 'widow': it has window, kernel or pooling"),
        (("snap@0.25",), "'snap' is no part of a compression recipe: did you mean snapkv?"),
        (("snapkv@0.25", "--tokens", "9"), "name it with --model"),
        (("snapkv@0.25", "--model", "local/nowhere"), "no such folder"),
        (("snapkv@0.25", "--model", "http://127.0.0.1:9/v1"), "its cache is not ours to compress"),
    ],
)
def test_what_cannot_be_shown_is_one_line(kv, arguments, said):
    wrong = kv("show", *arguments)
    assert wrong.exit_code == 2
    assert said in " ".join(wrong.stderr.split())
    assert not wrong.stdout


def test_a_recipe_is_told_with_its_memory(kv, tmp_path):
    save_terse(tmp_path / "terse", window=4096)
    shown = kv("show", "kvzip+global@0.25", "--model", "local/terse", "--tokens", "1000")
    assert shown.exit_code == 0, shown.stderr
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert "the text is read a second time" in shown.stdout
    assert "25.0% of it" in shown.stdout
    auto = json.loads(kv("show", "auto", "--model", "local/terse", "--json").stdout)
    assert [choice["use"] for choice in auto] == ["question", "document", "chat", "output"]
    assert {choice["kv"] for choice in auto} == {"full"}
    assert kv("show", "auto").stdout.startswith("auto       the full cache")


def test_a_text_beyond_the_window_is_said_to_be(kv, tmp_path):
    save_terse(tmp_path / "terse", window=4096)
    long = ("--model", "local/terse", "--tokens", "200000")
    shown = kv("show", "auto", *long)
    assert shown.exit_code == 0, shown.stderr
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    told = " ".join(shown.stdout.split())
    assert "cache fits" not in told
    assert told.count("200,000 tokens do not go into the window of 4,096") == 3
    assert "task+positions=compact@2048tok" in told
    auto = json.loads(kv("show", "auto", *long, "--json").stdout)
    assert {choice["kv"] for choice in auto} == {""}
    named = " ".join(kv("show", "snapkv@0.25", *long).stdout.split())
    assert "200,000 tokens do not go into the window of 4,096" in named
    moved = kv("show", "task+positions=compact@2048tok", *long, "--json")
    memory = json.loads(moved.stdout)["memory"]
    assert (memory["window"] >= 200_000, memory["problem"]) == (True, "")


def test_a_question_is_answered_with_a_compressed_cache(lcdoc, environment, story, tmp_path):
    save_terse(tmp_path / "models" / "terse", window=4096)
    environment |= {
        "LCDOC_MODELS": str(tmp_path / "models"),
        "LCDOC_CONFIG": str(tmp_path / "config.toml"),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    asked = ("ask", story, QUESTION, "--workflow", "retrieve", "--json", "--model", "local/terse")
    answer = json.loads(lcdoc(*asked, "--kv", "ada+snapkv@256tok").stdout)
    assert answer["model"] == f"local/{tmp_path / 'models' / 'terse'}#snapkv+ada@256tok"
    assert answer["usage"]["calls"] > 0
    assert not answer["partial"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "offline"), "model offline: its cache is not ours to compress; take --kv off"),
        (("--model", "http://127.0.0.1:9/v1"), "its cache is not ours to compress"),
        (("--resume", "1c9f"), "--resume goes on with a run as it began"),
    ],
)
def test_what_does_not_fit_is_one_line(lcdoc, story, options, said):
    files = () if "--resume" in options else (story, QUESTION)
    run = lcdoc("ask", *files, *options, "--kv", "snapkv@0.5")
    assert run.returncode == 2
    assert said in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert not run.stdout
