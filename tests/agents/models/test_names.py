"""From names to addresses, keys and facts; no key goes astray, and no paid service is reached by a bare name."""

import os
import stat

import pytest

from lcdoc.agents.models.addresses import is_loopback
from lcdoc.agents.models.config import Config, load_config
from lcdoc.agents.models.errors import ModelConfigError, ModelError, ModelNameError
from lcdoc.agents.models.model import Prices, RateLimits
from lcdoc.agents.models.model_specs import ASSUMED_WINDOW
from lcdoc.agents.models.names import is_offline, resolve, wanted

NO_CONFIG = Config()
OPENAI_KEY = "test-openai-key-0123456789"
OTHER_KEY = "test-other-key-0123456789"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "OPENROUTER_", "OLLAMA_", "LCDOC_")):
            monkeypatch.delenv(name)


def configured(tmp_path, text):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def name_error(name, config=NO_CONFIG):
    with pytest.raises(ModelNameError) as caught:
        resolve(name, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def config_error(name, config=NO_CONFIG):
    with pytest.raises(ModelConfigError) as caught:
        resolve(name, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- which name counts -----------------------------------------------------------------------------------------------


def test_the_name_that_counts_is_the_nearest_one_given(monkeypatch):
    config = Config(model="from-config")
    assert wanted(None, NO_CONFIG) == "offline"
    assert wanted(None, config) == "from-config"
    monkeypatch.setenv("LCDOC_MODEL", "from-variable")
    assert wanted(None, config) == "from-variable"
    assert wanted(" given ", config) == "given"
    monkeypatch.setenv("LCDOC_MODEL", " ")
    assert wanted("", config) == "from-config"


def test_offline_is_no_model():
    assert is_offline("offline") and is_offline(" Offline ")
    assert not is_offline("openai/gpt-4.1")
    assert "names no language model" in name_error("offline")
    assert "names no language model" in name_error(None)


# --- openai/ ---------------------------------------------------------------------------------------------------------


def test_an_openai_model_is_known_before_anything_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {OPENAI_KEY}\n")
    chosen = resolve("openai/gpt-4.1-mini", NO_CONFIG)
    assert chosen.key.reveal() == OPENAI_KEY
    assert chosen.notes == ()
    spec = chosen.spec
    assert spec.name == "openai/gpt-4.1-mini"
    assert (spec.context_window, spec.context_window_known, spec.max_output_tokens) == (1_047_576, True, 32_768)
    assert spec.prices == Prices(0.40, 1.60, 0.10)
    assert (spec.server.base_url, spec.server.model) == ("https://api.openai.com/v1", "gpt-4.1-mini")
    assert spec.server.max_tokens_field == "max_completion_tokens" and spec.server.sends_temperature
    assert OPENAI_KEY not in repr(chosen)


def test_reasoning_models_get_no_temperature_and_a_window_their_prices_hold_for(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    spec = resolve("openai/gpt-5.4-2026-03-05", NO_CONFIG).spec
    assert not spec.server.sends_temperature
    assert (spec.context_window, spec.context_window_known) == (272_000, True)
    assert spec.server.model == "gpt-5.4-2026-03-05"


def test_a_missing_key_is_named_before_anything_is_sent(monkeypatch):
    assert "OPENAI_API_KEY is not set" in config_error("openai/gpt-4.1-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert "OPENAI_API_KEY is not set" in config_error("openai/gpt-4.1-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "two words-0123456789")
    message = config_error("openai/gpt-4.1-mini")
    assert "OPENAI_API_KEY" in message and "0123456789" not in message


def test_an_openai_model_nobody_knows_is_asked_for_with_a_note(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    chosen = resolve("openai/gpt-4.1-mni", NO_CONFIG)
    assert chosen.spec.prices is None
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (ASSUMED_WINDOW, False)
    assert chosen.notes == (
        "nothing is known of openai/gpt-4.1-mni, its prices included; did you mean openai/gpt-4.1-mini?",
    )


def test_openai_base_url_is_honoured_told_and_has_no_openai_prices(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example.com/openai/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    chosen = resolve("openai/gpt-4.1-mini", NO_CONFIG)
    assert chosen.spec.server.base_url == "https://gateway.example.com/openai/v1"
    assert chosen.key.reveal() == OPENAI_KEY
    assert "OPENAI_BASE_URL" in chosen.notes[0] and "gateway.example.com" in chosen.notes[0]
    assert chosen.spec.prices is None
    assert chosen.spec.server.max_tokens_field == "max_completion_tokens"
    assert not chosen.spec.context_window_known
    monkeypatch.delenv("OPENAI_API_KEY")
    assert resolve("openai/gpt-4.1-mini", NO_CONFIG).key is None
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1/")
    assert "OPENAI_API_KEY is not set" in config_error("openai/gpt-4.1-mini")
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://me:{OTHER_KEY}@gateway.example.com/v1")
    message = name_error("openai/gpt-4.1-mini")
    assert "OPENAI_BASE_URL" in message and OTHER_KEY not in message


# --- openrouter/, ollama/, local/ ------------------------------------------------------------------------------------


def test_openrouter_has_its_own_key_and_unknown_prices(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    assert "OPENROUTER_API_KEY is not set" in config_error("openrouter/openai/gpt-4.1-mini")
    monkeypatch.setenv("OPENROUTER_API_KEY", OTHER_KEY)
    chosen = resolve("openrouter/openai/gpt-4.1-mini", NO_CONFIG)
    assert chosen.key.reveal() == OTHER_KEY
    assert chosen.spec.server.base_url == "https://openrouter.ai/api/v1"
    assert chosen.spec.server.model == "openai/gpt-4.1-mini"
    assert chosen.spec.prices is None
    assert not chosen.spec.context_window_known
    small = resolve("openrouter/meta-llama/llama-3.1-8b-instruct", NO_CONFIG).spec
    assert (small.profile, small.context_window) == ("small", 131_072)


@pytest.mark.parametrize(
    ("host", "base_url"),
    [
        (None, "http://127.0.0.1:11434/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:9999", "http://127.0.0.1:9999/v1"),
        (":9999", "http://127.0.0.1:9999/v1"),
        ("gpu.lan", "http://gpu.lan:11434/v1"),
        ("https://ollama.example.com", "https://ollama.example.com/v1"),
        ("http://gpu.lan:8000/", "http://gpu.lan:8000/v1"),
        ("[::1]:9999", "http://[::1]:9999/v1"),
        ('"gpu.lan"', "http://gpu.lan:11434/v1"),
    ],
)
def test_ollama_is_found_as_its_own_tools_find_it(monkeypatch, host, base_url):
    if host is not None:
        monkeypatch.setenv("OLLAMA_HOST", host)
    spec = resolve("ollama/qwen2.5:7b", NO_CONFIG).spec
    assert (spec.server.base_url, spec.server.model) == (base_url, "qwen2.5:7b")
    assert spec.profile == "small" and not spec.context_window_known


def test_a_local_model_that_is_not_there_is_refused():
    assert "no such folder: /no/such/qwen" in name_error("local//no/such/qwen")


@pytest.mark.parametrize("name", ["openai/", "openrouter/", "ollama/ ", "local/"])
def test_a_prefix_alone_is_no_name(name):
    assert "the model's name is missing" in name_error(name)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base_url", "model"),
    [
        ("http://127.0.0.1:8080#qwen", "http://127.0.0.1:8080/v1", "qwen"),
        ("http://127.0.0.1:8080/#qwen", "http://127.0.0.1:8080/v1", "qwen"),
        ("http://127.0.0.1:8080/v1#Qwen/Qwen2.5-7B", "http://127.0.0.1:8080/v1", "Qwen/Qwen2.5-7B"),
        ("HTTP://LocalHost:8080/v1/#a:b", "http://localhost:8080/v1", "a:b"),
        ("https://llm.example.com/api/v1#m", "https://llm.example.com/api/v1", "m"),
        ("https://llm.example.com:443/v1#m", "https://llm.example.com/v1", "m"),
        ("http://host:80/v1/chat/completions#m", "http://host/v1", "m"),
        ("http://[::1]:8080#m", "http://[::1]:8080/v1", "m"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1", ""),
    ],
)
def test_addresses_are_brought_into_one_spelling(name, base_url, model):
    server = resolve(name, NO_CONFIG).spec.server
    assert (server.base_url, server.model) == (base_url, model)


def test_an_address_never_gets_the_key_of_openai(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    assert resolve("https://llm.example.com/v1#gpt-4.1", NO_CONFIG).key is None
    monkeypatch.setenv("LCDOC_API_KEY", OTHER_KEY)
    chosen = resolve("https://llm.example.com/v1#gpt-4.1", NO_CONFIG)
    assert chosen.key.reveal() == OTHER_KEY
    assert chosen.notes == ()


def test_a_key_that_travels_unencrypted_is_told(monkeypatch):
    monkeypatch.setenv("LCDOC_API_KEY", OTHER_KEY)
    assert resolve("http://127.0.0.1:8080#m", NO_CONFIG).notes == ()
    (note,) = resolve("http://gpu.lan:8080#m", NO_CONFIG).notes
    assert "unencrypted" in note and OTHER_KEY not in note


def test_a_server_of_ones_own_inherits_no_prices_and_no_window_of_a_hosted_model(monkeypatch):
    spec = resolve("http://127.0.0.1:8080#gpt-4.1-mini", NO_CONFIG).spec
    assert spec.prices is None
    assert (spec.context_window, spec.context_window_known) == (ASSUMED_WINDOW, False)
    assert spec.server.max_tokens_field == "max_tokens"


def test_openais_own_address_is_openai(monkeypatch):
    message = config_error("https://api.openai.com/v1#gpt-4.1")
    assert "LCDOC_API_KEY is not set" in message and "openai/gpt-4.1" in message
    monkeypatch.setenv("LCDOC_API_KEY", OTHER_KEY)
    assert resolve("https://api.openai.com/v1#gpt-4.1", NO_CONFIG).spec.prices == Prices(2.0, 8.0, 0.5)


@pytest.mark.parametrize(
    "name",
    [
        f"http://me:{OTHER_KEY}@host:8080/v1#m",
        f"https://{OTHER_KEY}@host/v1",
        f"http://host/v1?api_key={OTHER_KEY}#m",
        f"http://host:{OTHER_KEY}",
        f"http://[{OTHER_KEY}",
        f"http:///{OTHER_KEY}@",
        f"http://me/{OTHER_KEY}@host/v1",
    ],
)
def test_addresses_with_secrets_or_without_sense_are_refused_and_not_shown(name):
    message = name_error(name)
    assert OTHER_KEY not in message
    assert "http" in message.lower() or "LCDOC_API_KEY" in message


def test_a_password_in_an_address_has_a_remedy():
    message = name_error(f"http://me:{OTHER_KEY}@host:8080/v1#m")
    assert "would end up in logs" in message and "LCDOC_API_KEY" in message and "key_file" in message


@pytest.mark.parametrize(
    ("base_url", "own"),
    [
        ("http://localhost:1/v1", True),
        ("http://a.localhost/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:8080/v1", True),
        ("http://192.168.0.2/v1", False),
        ("http://localhost.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
    ],
)
def test_loopback_addresses_are_told_from_others(base_url, own):
    assert is_loopback(base_url) is own


# --- names that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt-4.1-mini", "did you mean openai/gpt-4.1-mini?"),
        ("gpt-4.1-mini-2025-04-14", "did you mean openai/gpt-4.1-mini-2025-04-14?"),
        ("gpt-41-mini", "did you mean openai/gpt-4.1-mini?"),
        ("opnai/gpt-4.1", "did you mean openai/gpt-4.1?"),
        ("offlien", "did you mean offline?"),
        ("hosue", "did you mean house?"),
        ("qwen2.5:7b", "ollama/qwen2.5:7b"),
        ("localhost:8080", "did you mean http://localhost:8080?"),
        ("10.0.0.2:8080#m", "did you mean http://10.0.0.2:8080#m?"),
        ("zzz", "names are openai/NAME"),
    ],
)
def test_an_unknown_name_is_answered_with_what_may_have_been_meant(monkeypatch, tmp_path, name, says):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    config = configured(tmp_path, '[models.house]\nurl = "http://127.0.0.1:8080"')
    assert says in name_error(name, config)


def test_a_key_given_as_a_name_is_not_shown():
    assert "sk-live-0123456789ABCDEF" not in name_error("sk-live-0123456789ABCDEF")


# --- the configuration's models --------------------------------------------------------------------------------------


def test_an_entry_says_all_there_is_to_say(tmp_path, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", OTHER_KEY)
    monkeypatch.setenv("LCDOC_API_KEY", OPENAI_KEY)
    (tmp_path / "tokenizer.json").write_text("{}")
    config = configured(
        tmp_path,
        """
        model = "house"
        [models.house]
        url = "http://127.0.0.1:8080"
        model = "big-one"
        key_env = "HOUSE_KEY"
        context_window = 32_000
        max_output_tokens = 2_000
        prices = { input = 1.0, output = 2.0 }
        requests_per_minute = 10
        tokens_per_minute = 1_000
        concurrency = 2
        profile = "small"
        structured = "prompt"
        headers = { X-Project = "p" }
        extra_body = { top_k = 1 }
        max_tokens_field = "max_completion_tokens"
        sends_temperature = false
        tokenizer = "tokenizer.json"
        """,
    )
    chosen = resolve(None, config)
    assert chosen.key.reveal() == OTHER_KEY
    assert chosen.tokenizer == tmp_path / "tokenizer.json"
    spec, server = chosen.spec, chosen.spec.server
    assert spec.name == "house"
    assert (server.base_url, server.model) == ("http://127.0.0.1:8080/v1", "big-one")
    assert (spec.context_window, spec.context_window_known, spec.max_output_tokens) == (32_000, True, 2_000)
    assert spec.prices == Prices(1.0, 2.0)
    assert spec.limits == RateLimits(10, 1_000, 2)
    assert (spec.profile, server.structured, server.sends_temperature) == ("small", "prompt", False)
    assert server.max_tokens_field == "max_completion_tokens"
    assert (server.headers, server.extra_body) == ((("X-Project", "p"),), (("top_k", 1),))


def test_an_entry_with_an_address_gets_only_the_key_it_names(tmp_path, monkeypatch):
    monkeypatch.setenv("LCDOC_API_KEY", OTHER_KEY)
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    config = configured(
        tmp_path,
        '[models.own]\nurl = "https://own.example.com"\n'
        '[models.official]\nurl = "https://api.openai.com/v1"\nmodel = "gpt-4.1"\n'
        '[models.missing]\nurl = "https://own.example.com"\nkey_env = "NOT_SET_HERE"\n',
    )
    assert resolve("own", config).key is None
    assert 'key_env = "OPENAI_API_KEY"' in config_error("official", config)
    assert "NOT_SET_HERE is not set" in config_error("missing", config)


def test_an_entry_may_rename_a_known_model(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    config = configured(
        tmp_path,
        '[models.mini]\nmodel = "openai/gpt-4.1-mini"\nconcurrency = 3\n'
        '[models.chained]\nmodel = "mini"\n'
        '[models.bare]\nmodel = "gpt-4.1-mini"\n',
    )
    chosen = resolve("mini", config)
    assert chosen.spec.name == "mini"
    assert chosen.spec.server.model == "gpt-4.1-mini"
    assert chosen.key.reveal() == OPENAI_KEY
    assert chosen.spec.prices == Prices(0.40, 1.60, 0.10)
    assert chosen.spec.limits.concurrency == 3
    assert "mini is not a full name" in config_error("chained", config)
    assert "gpt-4.1-mini is not a full name" in config_error("bare", config)


def test_like_takes_the_facts_of_a_known_model_prices_included(tmp_path):
    config = configured(
        tmp_path,
        '[models.azure]\nurl = "https://me.openai.azure.com/openai/v1"\nmodel = "deployment-3"\nlike = "gpt-5-mini"\n'
        '[models.odd]\nurl = "https://own.example.com"\nlike = "gpt-5-mnii"\n'
        '[models.open]\nurl = "https://own.example.com"\nmodel = "m"\nlike = "qwen2.5-7b"\n',
    )
    spec = resolve("azure", config).spec
    assert spec.prices == Prices(0.25, 2.0, 0.025)
    assert (spec.context_window, spec.context_window_known) == (272_000, True)
    assert (spec.server.max_tokens_field, spec.server.sends_temperature) == ("max_completion_tokens", False)
    assert "did you mean gpt-5-mini?" in config_error("odd", config)
    own = resolve("open", config).spec
    assert (own.context_window, own.context_window_known, own.profile) == (32_768, False, "small")


def test_prices_that_do_not_hold_for_the_configured_window_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    config = configured(
        tmp_path,
        '[models.long]\nmodel = "openai/gpt-5.4"\ncontext_window = 1_050_000\n'
        '[models.priced]\nmodel = "openai/gpt-5.4"\ncontext_window = 1_050_000\nprices = { input = 5, output = 22 }\n',
    )
    chosen = resolve("long", config)
    assert chosen.spec.context_window == 1_050_000
    assert chosen.spec.prices is None
    assert any("272,000" in note for note in chosen.notes)
    assert resolve("priced", config).spec.prices == Prices(5.0, 22.0)


def test_facts_of_the_configuration_hold_where_they_are_said_to(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    config = configured(
        tmp_path,
        '[facts."own-model"]\ncontext_window = 40_000\nprices = { input = 0.1, output = 0.2 }\n'
        '[facts."gpt-4.1-mini"]\nprices = { input = 0.3, output = 1.2 }\n',
    )
    own = resolve("http://127.0.0.1:8080#own-model", config).spec
    assert (own.context_window, own.context_window_known, own.prices) == (40_000, True, Prices(0.1, 0.2))
    assert resolve("openai/gpt-4.1-mini", config).spec.prices == Prices(0.3, 1.2)
    assert resolve("http://127.0.0.1:8080#gpt-4.1-mini", config).spec.prices is None


def test_a_tokenizer_that_is_not_there_is_an_error(tmp_path):
    config = configured(tmp_path, '[models.a]\nurl = "http://h"\ntokenizer = "none.json"')
    assert str(tmp_path / "none.json") in config_error("a", config)


def test_an_address_in_an_entry_is_checked_like_any_other(tmp_path):
    config = configured(
        tmp_path,
        f'[models.a]\nurl = "http://me:{OTHER_KEY}@h/v1"\n[models.b]\nurl = "http://h/v1#m"\n[models.c]\nurl = "h:80"',
    )
    assert OTHER_KEY not in name_error("a", config)
    assert 'model = "..."' in config_error("b", config)
    assert "not an address" in name_error("c", config)


# --- key files -------------------------------------------------------------------------------------------------------


def with_key_file(tmp_path, content, mode=0o600):
    path = tmp_path / "the.key"
    path.write_bytes(content)
    path.chmod(mode)
    return configured(tmp_path, '[models.a]\nurl = "https://h/v1"\nmodel = "m"\nkey_file = "the.key"')


def test_a_key_file_is_read_without_its_white_space(tmp_path):
    chosen = resolve("a", with_key_file(tmp_path, f"\n  {OTHER_KEY}\r\n".encode()))
    assert chosen.key.reveal() == OTHER_KEY
    assert chosen.notes == ()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_key_file_that_others_can_read_is_told(tmp_path):
    config = with_key_file(tmp_path, OTHER_KEY.encode(), 0o644)
    assert (tmp_path / "the.key").stat().st_mode & stat.S_IROTH
    (note,) = resolve("a", config).notes
    assert str(tmp_path / "the.key") in note and "chmod 600" in note and OTHER_KEY not in note


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b" \n", "is empty"),
        (f"{OTHER_KEY}\nsecond line".encode(), "is not a key"),
        (f"{OTHER_KEY}\xff".encode("latin-1"), "is not a key"),
        (b"k" * 20_000, "too long"),
    ],
)
def test_a_key_file_without_a_key_is_named(tmp_path, content, says):
    message = config_error("a", with_key_file(tmp_path, content))
    assert says in message and str(tmp_path / "the.key") in message
    assert OTHER_KEY not in message


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    config = configured(tmp_path, '[models.a]\nurl = "https://h/v1"\nmodel = "m"\nkey_file = "none.key"')
    message = config_error("a", config)
    assert str(tmp_path / "none.key") in message and "cannot be read" in message


def test_every_refusal_is_a_model_error_so_that_one_handler_shows_them_all():
    for name in ("offline", "zzz", "openai/gpt-4.1", "http://", "local/x"):
        with pytest.raises(ModelError):
            resolve(name, NO_CONFIG)
