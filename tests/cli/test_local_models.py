"""`--model local/PATH` and what `lcdoc models` lists, as processes."""

import json
from pathlib import Path

import pytest

from lcdoc.tests.agents.models.local_checkpoint import save_terse
from lcdoc.tests.local_engine.checkpoints import edit_json

QUESTION = "How many passengers may the ferry Bittern carry?"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model that runs and one that does not."""
    folder = tmp_path_factory.mktemp("models")
    save_terse(folder / "terse", window=4096)
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text("{}")
    edit_json(folder / "other" / "config.json", architectures=["GPT2LMHeadModel"])
    return folder


@pytest.fixture
def environment(environment: dict[str, str], tmp_path: Path, models: Path) -> dict[str, str]:
    environment.pop("LCDOC_MODEL", None)
    environment |= {
        "LCDOC_CONFIG": str(tmp_path / "config.toml"),
        "LCDOC_MODELS": str(models),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    return environment


def test_a_question_is_answered_in_process_and_gone_on_with_from_elsewhere(lcdoc, story, models):
    estimate = lcdoc("ask", story, QUESTION, "--workflow", "retrieve", "--model", "local/terse", "--estimate")
    assert estimate.returncode == 0, estimate.stderr
    assert f"local/{models / 'terse'}: 2 calls" in estimate.stdout
    assert "$0.00" in estimate.stdout
    run = lcdoc("ask", story, QUESTION, "--workflow", "retrieve", "--model", "local/terse", "--max-calls", 0, "--json")
    answer = json.loads(run.stdout)
    assert answer["partial"]
    resumed = lcdoc("ask", "--resume", answer["run_id"], "--json", "--max-cost", "0.01")
    answer = json.loads(resumed.stdout)
    assert answer["model"] == f"local/{models / 'terse'}"
    assert not answer["partial"]
    assert answer["usage"]["calls"] > 0
    assert answer["usage"]["cost_usd"] == 0
    assert "loading local/" in resumed.stderr
    assert "Traceback" not in resumed.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local/nothing", "no such folder: "),
        ("local/other", "GPT2LMHeadModel models are not run"),
        ("local/some/model", "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_cannot_be_run_is_one_line(lcdoc, story, name, message):
    run = lcdoc("ask", story, QUESTION, "--model", name)
    assert run.returncode == 2
    said = " ".join(run.stderr.split())
    assert message in said
    if name != "local/other":
        assert "found here: local/other, local/terse" in said
    assert "Traceback" not in said
    assert not run.stdout


def test_local_models_are_listed_with_what_fits(lcdoc, models):
    listed = json.loads(lcdoc("models", "--json").stdout)["local"]
    other, terse = listed
    assert (other["name"], other["window"]) == ("local/other", None)
    assert "GPT2LMHeadModel" in other["problem"]
    assert (terse["name"], terse["window"], terse["problem"]) == ("local/terse", 4096, "")
    assert terse["bytes_on_disk"] == (models / "terse" / "model.safetensors").stat().st_size
    assert terse["fits"] == {"bfloat16": 4096, "int8": 4096, "int4": 4096}
    assert "local/terse: 0.5 MB on disk" in lcdoc("models").stdout
    assert json.loads(lcdoc("models", "local/terse", "--json").stdout)["window"] == "4,096 tokens"


def test_a_document_is_read_once(lcdoc, story, models, environment):
    kept = lcdoc("index", story, "--model", "local/terse", "--kv", "keydiff@0.5")
    assert kept.returncode == 0, kept.stderr
    assert "keeping 2 pieces by keydiff@0.5: " in kept.stderr
    assert "50% of what was read is held" in kept.stderr
    run = lcdoc("ask", story, QUESTION, "--workflow", "chain", "--model", "local/terse", "--json")
    answer = json.loads(run.stdout)
    assert answer["kv"] == ["keydiff@0.5"]
    assert answer["model"] == f"local/{models / 'terse'}"
    assert answer["usage"]["tokens_cached"] > 500
    shown = lcdoc("library", "show", story)
    assert f"local/{models / 'terse'} by keydiff@0.5: 2 pieces" in shown.stdout
    assert "2 kept caches" in lcdoc("library", "list").stderr


def test_only_what_runs_here_keeps_documents(lcdoc, story):
    run = lcdoc("index", story, "--model", "offline")
    assert run.returncode == 2
    assert run.stderr.strip().splitlines() == [
        "lcdoc: offline keeps nothing here; name a model that runs here: --model local/PATH"
    ]
