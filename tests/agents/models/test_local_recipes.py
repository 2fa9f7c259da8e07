"""Recipes of a local model's cache: by name, in the configuration, and in what tells its answers apart."""

import asyncio
from pathlib import Path

import pytest

from lcdoc.agents.models import local_facts
from lcdoc.agents.models.config import ConfigFileError, load_config
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.local_engines import LocalOptions
from lcdoc.agents.models.local_facts import facts_of
from lcdoc.agents.models.local_kv_memory import auto_choices, auto_rules, cache_need, cache_room
from lcdoc.agents.models.local_memory import CACHE_SHARE, weight_bytes
from lcdoc.agents.models.local_recipes import RecipeError, meaning, parts
from lcdoc.agents.models.names import resolve, with_kv
from lcdoc.local_engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS, part_class
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
    with pytest.raises(ModelConfigError, match="'snap' is no part of a compression recipe: did you mean snapkv"):
        resolve("local/terse#snap@0.5", read)
    config.write_text('[models.far]\nurl = "http://127.0.0.1:9/v1"\nkv = "knorm@0.5"\n', encoding="utf-8")
    with pytest.raises(ConfigFileError, match="kv, which only models that run here have"):
        load_config(config)


def test_all_parts_are_told() -> None:
    listed = parts()
    assert [part.name for part in listed] == [*SCORERS, *BUDGETS, *REDUCERS]
    assert len({part.line for part in listed}) == len(listed)
    assert all(part.needs for part in listed if part.kind == "scorer")
    assert sum(bool(part.papers) for part in listed) == len(listed) - 2  # uniform and drop are nobody's
    snapkv = next(part for part in listed if part.name == "snapkv").as_dict()
    assert (snapkv["kind"], snapkv["options"]["pooling"], snapkv["papers"]) == ("scorer", "avg", ["SnapKV"])


def test_a_recipe_is_told() -> None:
    told = meaning("ada + snapkv:window=64 + when=end @ 0.125")
    assert told.recipe == "snapkv:window=64+ada+when=end@0.125"
    assert told.keeps == "12.5% of what was read"
    assert told.always == "the first 4 entries, the last 64, the question"
    assert told.when.startswith("once the prompt is read")
    assert told.question == "goes by it: not for documents that are kept"
    assert told.costs == ("the attention of the last 64 queries once",)
    assert meaning("knorm+positions=capped@2048tok").keeps == "2,048 entries a row, however long the text"
    with pytest.raises(RecipeError, match="names no scorer") as raised:
        meaning("ada@0.5")
    assert str(raised.value).endswith("; `lcdoc kv list` shows the parts")
    with pytest.raises(RecipeError, match=r"did you mean keydiff\?$"):
        meaning("keydif@0.5")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("kvzip+global@0.25", "read a second time"),
        ("task:window=100@0.25", "up to 100 tokens of the task are read at each cut"),
        ("speckv+when=end@0.25", "a draft of 128 tokens is written once"),
        ("h2o@0.25", "the attention of all queries is added up"),
        ("expected@0.25", "mean and covariance of all queries"),
        ("knorm@0.25", "next to nothing"),
        ("knorm+cam@0.25", "the attention of all queries is added up"),
    ],
)
def test_what_a_recipe_costs(recipe: str, said: str) -> None:
    assert any(said in cost for cost in meaning(recipe).costs)


@pytest.mark.parametrize("scorer", SCORERS)
def test_what_looks_at_the_last_queries_goes_by_the_question(scorer: str) -> None:
    needs = part_class(scorer)().needs
    fit = not meaning(f"{scorer}@0.5").question.startswith("goes by it")
    if needs.probe is not None:
        assert fit == (needs.probe == "repeat")
    elif scorer != "compactor":  # its queries stand for the text
        assert fit == (needs.window == 0)


def test_the_memory_of_a_recipe_is_what_the_engine_takes(tmp_path: Path) -> None:
    folder = save_terse(tmp_path / "terse", window=4096)
    facts = facts_of("local/terse", folder)
    options = LocalOptions(dtype="float32")
    need = cache_need(facts, options, "knorm@256tok", 600)
    with Engine.load(folder, dtype="float32", kv=KVConfig(page_size=64, max_memory=50e6)) as engine:
        prompt = [7 + i % 400 for i in range(600)]
        full = asyncio.run(engine.complete(prompt, Sampling(max_tokens=4), kv="full")).usage
        cut = asyncio.run(engine.complete(prompt, Sampling(max_tokens=4), kv="knorm@256tok")).usage
    page = 64 * need.token_bytes
    assert need.full_bytes <= full.cache_bytes <= need.full_bytes + page
    assert need.kept_bytes <= cut.cache_bytes <= need.kept_bytes + page
    assert need.kept_bytes < need.most_bytes <= need.full_bytes + page
    with pytest.raises(RecipeError, match="no part of a compression recipe"):
        cache_need(facts, options, "snap@0.5", 600)


def test_auto_is_told_for_a_model_s_memory(tmp_path: Path) -> None:
    facts = facts_of("local/terse", save_terse(tmp_path / "terse", window=20_000))
    bytes_a_token = cache_need(facts, LocalOptions(), "knorm@1", 1).token_bytes
    options = LocalOptions(max_memory=8192.0 * bytes_a_token)
    assert cache_room(facts, options) == 8192
    chosen = {choice.use: choice.kv for choice in auto_choices(facts, options, 6000)}
    assert chosen["question"] == chosen["chat"] == "full"
    assert chosen["document"].startswith("kvzip:leverage")
    chosen = {choice.use: choice for choice in auto_choices(facts, options, 9000)}
    assert chosen["chat"].kv == ""
    assert "drops nothing of a chat" in chosen["chat"].reason
    assert chosen["question"].kv not in {"full", ""}
    assert {rule.use for rule in auto_rules()} == set(chosen)
    half = cache_room(facts, LocalOptions(max_memory=0.25))
    assert half == pytest.approx(cache_room(facts, LocalOptions()) / 2, rel=0.01)


def test_auto_says_what_becomes_of_a_text_beyond_the_window(tmp_path: Path) -> None:
    folder = save_terse(tmp_path / "terse", window=4096)
    facts = facts_of("local/terse", folder)
    told = {choice.use: choice for choice in auto_choices(facts, LocalOptions(), 200_000)}
    assert {choice.kv for choice in told.values()} == {""}
    assert "200,000 tokens do not go into the window of 4,096" in told["question"].reason
    assert "400,000 tokens" in told["output"].reason
    assert "task+positions=compact@2048tok reads it as one text" in told["document"].reason
    # The window is what the configuration makes of it, and the whole of it is there by default.
    assert {choice.kv for choice in auto_choices(facts, LocalOptions())} == {"full"}
    wide = facts_of("local/terse", folder, rope="yarn:factor=64")
    assert auto_choices(wide, LocalOptions(rope="yarn:factor=64"), 100_000)[0].kv != ""
    assert "400,000" in auto_choices(wide, LocalOptions(rope="yarn:factor=64"), 400_000)[0].reason


def test_a_recipe_s_window_is_told(tmp_path: Path) -> None:
    facts = facts_of("local/terse", save_terse(tmp_path / "terse", window=4096))

    def told(recipe: str, tokens: int) -> tuple[int, str]:
        need = cache_need(facts, LocalOptions(), recipe, tokens)
        assert (need.problem in need.lines()) == bool(need.problem)
        return need.window, need.problem

    assert told("snapkv@256tok", 4096) == (4096, "")
    window, problem = told("snapkv@256tok", 4097)
    assert window == 4096
    assert problem.startswith("refused as a whole: 4,097 tokens")
    assert told("snapkv+positions=compact@256tok", 200_000) == (1_000_000_000, "")
    # A share of such a text is more than the window.
    assert "50,000 tokens away" in told("snapkv+positions=compact@0.25", 200_000)[1]
    assert told("snapkv+positions=compact+when=end@256tok", 9000)[0] == 4096
    extended = "knorm+positions=self-extend:group=8,neighbours=512@256tok"
    assert told(extended, 20_000)[1] == ""
    assert "refused" in told(extended, 30_000)[1]


def test_a_window_is_stretched_where_the_configuration_says_so(tmp_path: Path) -> None:
    folder = save_terse(tmp_path / "terse", window=512)
    path = tmp_path / "config.toml"
    entry = f'[models.wide]\nmodel = "local/{folder}"\nrope = '
    path.write_text(entry + '" yarn : factor = 4 "\n', encoding="utf-8")
    chosen = resolve("wide", load_config(path))
    assert chosen.spec.context_window == 2048
    assert "yarn:factor=4" in chosen.spec.identity
    path.write_text(entry + '"yarn:wide"\n', encoding="utf-8")
    with pytest.raises(ModelConfigError, match="say how far, as in yarn:length=32768"):
        resolve("wide", load_config(path))
    path.write_text('[models.far]\nurl = "http://127.0.0.1:9/v1"\nrope = "yarn:factor=4"\n', encoding="utf-8")
    with pytest.raises(ConfigFileError, match="rope, which only models that run here have"):
        load_config(path)


def test_a_text_may_be_longer_than_the_window_where_what_is_kept_is_moved_together(tmp_path: Path) -> None:
    folder = save_terse(tmp_path / "terse", window=1024)

    def window(kv: str) -> int:
        return resolve(f"local/{folder}#{kv}", load_config()).spec.context_window

    assert window("window@128tok") == 1024
    assert window("window+positions=compact@128tok") == 1_000_000_000
    assert window("window+when=end+positions=compact@128tok") == 1024
    assert window("knorm+positions=self-extend:group=8,neighbours=128@128tok") == 8 * (512 - 128 + 16)
    with pytest.raises(ModelConfigError, match="1,000 tokens away, and the model's window of 1,024 leaves 512"):
        window("window+positions=compact@1000tok")


def test_auto_plans_with_more_than_what_fits_in_full(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts_of("local/terse", tmp_path / "terse")
    assert facts.sizes is not None
    room = 3000
    free = weight_bytes(facts.sizes, "bfloat16") + int(room * facts.cache_numbers_per_token * 2 / CACHE_SHARE)
    monkeypatch.setattr(local_facts, "free_bytes", lambda _device: free)
    read = load_config(config)
    assert resolve("local/terse", read).spec.context_window == 2048
    assert resolve("local/terse#auto", read).spec.context_window == 4096
    assert resolve("local/terse#snapkv+when=end@0.5", read).spec.context_window == 2048
    assert resolve("local/terse#auto", read).spec.identity.endswith(" auto")
