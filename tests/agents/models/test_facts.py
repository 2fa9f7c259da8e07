"""The table of models: well formed, found by the names servers use, and never lent to another service."""

import re
import tomllib
from datetime import date
from importlib.resources import files

import pytest
from pydantic import ValidationError

from lcdoc.agents.models.facts import Facts, FactsTable, PriceFacts, shipped_facts, size_b
from lcdoc.agents.models.model import TokenUsage


def test_the_shipped_table_is_well_formed():
    table = shipped_facts()
    assert "gpt-4.1-mini" in table.models
    for name, facts in table.models.items():
        assert name == name.lower(), name
        assert facts.service, name
        assert facts.context_window, name
        assert facts.max_output_tokens and facts.max_output_tokens <= facts.context_window, name
        if facts.max_prompt_tokens:
            assert facts.max_prompt_tokens < facts.context_window, name
        if facts.prices:
            assert facts.as_of and date(2024, 1, 1) < facts.as_of, name
            assert 0 < facts.prices.input <= facts.prices.output, name
            assert facts.prices.cached_input is None or facts.prices.cached_input < facts.prices.input, name
            assert facts.prices.cache_write is None or facts.prices.cache_write > facts.prices.input, name
    for family in table.families:
        assert family.context_window or family.profile, family.match
        for pattern in family.match:
            assert pattern == pattern.lower() and "/" not in pattern, pattern


@pytest.mark.parametrize(
    "broken",
    [
        {"models": {"m": {"context_windw": 1}}},
        {"models": {"m": {"context_window": -1}}},
        {"models": {"m": {"context_window": "8192"}}},
        {"models": {"m": {"prices": {"input": 1.0}}}},
        {"models": {"m": {"prices": {"input": -1.0, "output": 1.0}}}},
        {"models": {"m": {"prices": {"input": float("nan"), "output": 1.0}}}},
        {"models": {"m": {"profile": "tiny"}}},
        {"families": [{"match": []}]},
        {"families": [{"match": ["a*"], "prices": {"input": 1.0, "output": 1.0}}]},
    ],
)
def test_a_malformed_entry_is_refused(broken):
    with pytest.raises(ValidationError):
        FactsTable.model_validate(broken)


def test_every_family_pattern_is_reached():
    """A pattern whose fields an earlier family always states would be dead."""
    raw = tomllib.loads(files("lcdoc.agents.models").joinpath("facts.toml").read_text())
    table = shipped_facts()
    for family in raw["families"]:
        for pattern in family["match"]:
            name = re.sub(r"\[(.).*?\]", r"\1", pattern).replace("*", "x")
            facts = table.family(name)
            assert facts is not None, pattern
            if "context_window" in family:
                assert facts.context_window == family["context_window"], pattern
            if "profile" in family:
                assert facts.profile == family["profile"], pattern


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("gpt-4.1-mini", 1_047_576),
        ("GPT-4.1-Mini", 1_047_576),
        ("gpt-4.1-mini-2025-04-14", 1_047_576),
        ("openai/gpt-4o", 128_000),
        ("openai/gpt-4o-2024-11-20", 128_000),
        ("o4-mini", 200_000),
    ],
)
def test_hosted_models_are_found_by_name_snapshot_and_vendor(name, window):
    assert shipped_facts().lookup(name, service="openai").context_window == window


def test_a_snapshot_with_facts_of_its_own_keeps_them():
    table = shipped_facts()
    assert table.named("gpt-4o-2024-05-13").prices.input == 5.00
    assert table.named("gpt-4o-2024-08-06").prices.input == 2.50


def test_facts_of_a_service_are_not_lent_to_a_server_of_the_same_name():
    assert shipped_facts().lookup("gpt-4.1-mini", service=None) is None
    assert shipped_facts().lookup("gpt-4.1-mini", service="another") is None


@pytest.mark.parametrize(
    ("name", "window", "profile"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 32_768, "small"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 32_768, "large"),
        ("/models/Qwen2.5-14B-Instruct-Q4_K_M.gguf", 32_768, "large"),
        (r"C:\models\qwen2.5-3b-instruct-q8_0.gguf", 32_768, "small"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 262_144, "large"),
        ("qwen3:0.6b", 32_768, "small"),
        ("Qwen/Qwen2.5-7B-Instruct-1M", 1_010_000, "small"),
        ("meta-llama/Llama-3.1-8B-Instruct", 131_072, "small"),
        ("llama3.2:latest", 131_072, "small"),
        ("llama3.3", 131_072, None),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8_192, "small"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 32_768, None),
        ("google/gemma-3-27b-it", 131_072, "large"),
        ("google/gemma-3n-E4B-it", 32_768, "small"),
        ("microsoft/Phi-3.5-mini-instruct", 131_072, "small"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", 8_192, "small"),
        ("HuggingFaceTB/SmolLM3-3B", 65_536, "small"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 131_072, "small"),
        ("some/unheard-of-4b", None, "small"),
        ("some/unheard-of-9b", None, "small"),
        ("some/unheard-of-12b", None, "large"),
    ],
)
def test_open_weights_are_known_by_their_family_and_size(name, window, profile):
    facts = shipped_facts().lookup(name, service=None)
    assert (facts.context_window, facts.profile) == (window, profile)
    assert facts.prices is None


def test_a_name_that_says_nothing_is_not_known():
    assert shipped_facts().lookup("house-model", service=None) is None
    assert shipped_facts().lookup("", service="openai") is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("qwen2.5-0.5b", 0.5), ("gemma3:270m", 0.27), ("qwen3-235b-a22b", 235.0), ("model-q4_k_m", None), ("abc", None)],
)
def test_sizes_are_read_from_names(name, size):
    assert size_b(name) == (None if size is None else pytest.approx(size))


def test_tokens_that_may_be_written_to_the_cache_are_charged_as_if_they_were():
    prices = PriceFacts(input=2.0, output=10.0, cached_input=0.2, cache_write=2.5).prices()
    assert prices.cost_usd(TokenUsage(tokens_in=1_000_000, tokens_cached=400_000)) == pytest.approx(
        0.6 * 2.5 + 0.4 * 0.2
    )
    assert PriceFacts(input=2.0, output=10.0).prices().input == 2.0


def test_the_usable_window_is_the_narrower_of_window_and_prompt():
    assert Facts(context_window=400_000, max_prompt_tokens=272_000).usable_window == 272_000
    assert Facts(context_window=8_192).usable_window == 8_192
    assert Facts().usable_window is None


def test_a_users_facts_extend_and_override_field_by_field():
    table = shipped_facts().extended(
        {
            "gpt-4.1-mini": Facts(prices=PriceFacts(input=0.3, output=1.2)),
            "House": Facts(context_window=50_000),
        }
    )
    mini = table.lookup("gpt-4.1-mini-2025-04-14", service="openai")
    assert mini.prices.input == 0.3
    assert mini.context_window == 1_047_576
    assert table.lookup("gpt-4.1-mini", service=None) is None
    assert table.lookup("house", service=None).context_window == 50_000
    assert shipped_facts().named("gpt-4.1-mini").prices.input == 0.40
