"""`lcdoc kv`, and `--kv` for a model that runs in process."""

import json

import pytest

from lcdoc.tests.agents.models.local_checkpoint import save_terse

QUESTION = "How many passengers may the ferry Bittern carry?"


def test_parts_are_listed_with_a_line_each(lcdoc):
    listed = lcdoc("kv", "list")
    assert listed.returncode == 0, listed.stderr
    lines = listed.stdout.splitlines()
    assert lines[0].startswith("scorers: ")
    for name in ("snapkv", "kvzip+", "ada", "d2o-layers", "kvmerger", "match"):
        assert sum(line.startswith(f"  {name}: ") and len(line) > len(name) + 10 for line in lines) == 1


def test_a_recipe_that_is_none_is_one_line(lcdoc):
    wrong = lcdoc("kv", "show", "snapkv:widow=64@0.25")
    assert wrong.returncode == 2
    assert "snapkv has no option 'widow': it has window, kernel or pooling" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


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
