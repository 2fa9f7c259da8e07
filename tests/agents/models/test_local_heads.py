"""Head scores of a local model: found once, kept for it, and part of what tells its answers apart."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcdoc.agents.models.config import Config
from lcdoc.agents.models.errors import ModelConfigError, RefusedRequestError
from lcdoc.agents.models.local_heads import find_local_heads
from lcdoc.agents.models.names import resolve
from lcdoc.cli import app
from lcdoc.documents import DocumentError
from lcdoc.local_engine.compression.budgets.static_heads import load_head_scores
from lcdoc.tests.agents.models.local_checkpoint import save_terse

KV = "#snapkv+static@0.5"


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    return f"local/{save_terse(tmp_path / 'terse', window=1024)}"


def test_heads_are_found_once_and_static_finds_them(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match=f"not known yet; find them: lcdoc kv heads {name}$"):
        resolve(name + KV, Config())
    run = CliRunner().invoke(app, ["kv", "heads", name, "--json"])
    assert run.exit_code == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["tokens"] == (1024 - 256) // 2
    assert len(told["scores"]) == 2
    assert Path(told["path"]).is_relative_to(tmp_path / "data")
    assert load_head_scores(Path(told["path"])).tolist() == told["scores"]
    spec = resolve(name + KV, Config()).spec
    # Other scores give other answers.
    Path(told["path"]).write_bytes(Path(told["path"]).read_bytes() + b"\n")
    assert resolve(name + KV, Config()).spec.identity != spec.identity


def test_a_document_and_a_file_may_be_named(name: str, tmp_path: Path) -> None:
    source = resolve(name, Config()).local
    assert source is not None
    book, out = tmp_path / "book.txt", tmp_path / "new" / "heads.json"
    book.write_text("It was the best of times, it was the worst of times. " * 9, encoding="utf-8")
    found = find_local_heads(name, source, text=book, out=out)
    assert (found.path, [path.name for path in out.parent.iterdir()]) == (out, ["heads.json"])
    assert 64 <= found.tokens < 384
    assert resolve(f"{name}#knorm+static:file={out}@0.5", Config()).spec.identity
    book.write_text("Too short.", encoding="utf-8")
    with pytest.raises(RefusedRequestError, match="head scores need 64"):
        find_local_heads(name, source, text=book)
    with pytest.raises(DocumentError):
        find_local_heads(name, source, text=tmp_path / "none.pdf")
    with pytest.raises(ModelConfigError, match=r"cannot be written .*name another file by --out"):
        book.write_text("It was the best of times. " * 40, encoding="utf-8")
        find_local_heads(name, source, text=book, out=book / "heads.json")
