"""Recipes of a local model's cache: by name, in the configuration, and in what tells its answers apart."""

from pathlib import Path

import pytest

from lcdoc.agents.models.config import ConfigFileError, load_config
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.local_recipes import meaning, parts
from lcdoc.agents.models.names import resolve, with_kv
from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS
from lcdoc.tests.agents.models.local_checkpoint import save_terse


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LCDOC_MODEL", raising=False)
    monkeypatch.setenv("LCDOC_MODELS", str(tmp_path))
    save_terse(tmp_path / "terse", window=4096)
    path = tmp_path / "config.toml"
    path.write_text('[models.small]\nmodel = "local/terse"\nkv = "drop + knorm@512tok"\n', encoding="utf-8")
    return path


def test_a_recipe_is_part_of_the_name_and_the_identity(config: Path, tmp_path: Path) -> None:
    read = load_config(config)
    plain = resolve("local/terse", read)
    chosen = resolve(with_kv("local/terse", "ada + snapkv@256tok", read), read)
    assert chosen.spec.name == f"local/{tmp_path / 'terse'}#snapkv+ada@256tok"
    assert chosen.local is not None
    assert chosen.local.options.kv == "snapkv+ada@256tok"
    assert chosen.spec.identity == f"{plain.spec.identity} snapkv+ada@256tok"
    # The name that is recorded leads to the same again.
    again = resolve(chosen.spec.name, read)
    assert again.spec == chosen.spec
    assert again.local is not None
    assert (again.local.folder, again.local.options) == (chosen.local.folder, chosen.local.options)


def test_an_entry_s_recipe_holds_unless_another_is_named(config: Path) -> None:
    read = load_config(config)
    entry = resolve("small", read)
    assert entry.spec.name == "small"
    assert entry.local is not None
    assert entry.local.options.kv == "knorm@512tok"
    named = resolve(with_kv("small", "tova@0.5", read), read)
    assert named.spec.name == "small#tova@0.5"
    assert named.local is not None
    assert named.local.options.kv == "tova@0.5"
    assert resolve(with_kv("small#tova@0.5", "knorm@0.5", read), read).spec.name == "small#knorm@0.5"


def test_what_cannot_be_compressed_is_said(config: Path) -> None:
    read = load_config(config)
    for name in (None, "offline", "openai/gpt-4.1-mini", "http://127.0.0.1:9/v1"):
        with pytest.raises(ModelConfigError, match="its cache is not ours to compress"):
            with_kv(name, "snapkv@0.5", read)
    with pytest.raises(ModelConfigError, match="'snap' is no part of a compression recipe"):
        resolve("local/terse#snap@0.5", read)
    config.write_text('[models.far]\nurl = "http://127.0.0.1:9/v1"\nkv = "knorm@0.5"\n', encoding="utf-8")
    with pytest.raises(ConfigFileError, match="kv, which only models that run here have"):
        load_config(config)


def test_all_parts_are_told() -> None:
    listed = parts()
    assert [part.name for part in listed] == [*SCORERS, *BUDGETS, *REDUCERS]
    assert all(len(part.about) > 10 and "\n" not in part.about for part in listed)
    snapkv = next(part for part in listed if part.name == "snapkv").as_dict()
    assert (snapkv["kind"], snapkv["options"]["pooling"]) == ("scorer", "avg")


def test_a_recipe_is_told() -> None:
    told = meaning("ada + snapkv:window=64 + when=end @ 0.25")
    assert told["recipe"] == "snapkv:window=64+ada+when=end@0.25"
    assert told["keeps"] == "25% of what was read"
    assert told["when"].startswith("once the prompt is read")
    assert meaning("knorm+positions=capped@2048tok")["keeps"] == "2,048 entries a row"
    with pytest.raises(ModelConfigError, match="names no scorer"):
        meaning("ada@0.5")
