"""The configuration file: what it may say, and what is said of one that does not fit."""

import re
from pathlib import Path

import pytest

from lcdoc.agents.models.config import Config, ConfigFileError, config_path, config_template, load_config
from lcdoc.agents.models.errors import ModelConfigError

SECRET = "sk-live-0123456789abcdef"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LCDOC_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> ConfigFileError:
    with pytest.raises(ConfigFileError) as caught:
        load_config(written(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "config.toml") in message
    assert SECRET not in message
    # A validation error in the traceback would show the values of the file.
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


def test_a_whole_file_is_read(tmp_path):
    config = load_config(
        written(
            tmp_path,
            """
            model = "house"
            max_usd = 1
            max_tokens = 2_000_000
            max_calls = 400
            max_seconds = 90.5

            [models.house]
            url = "http://127.0.0.1:8080/v1"
            model = "qwen"
            key_file = "house.key"
            context_window = 32_768
            max_output_tokens = 4_096
            prices = { input = 1, cached_input = 0.25, output = 4.0 }
            requests_per_minute = 500
            tokens_per_minute = 200_000
            concurrency = 4
            profile = "small"
            structured = "json_object"
            headers = { X-Project = "reading" }
            extra_body = { top_k = 1, max_thinking_tokens = 64, chat_template_kwargs = { enable_thinking = false } }
            max_tokens_field = "max_completion_tokens"
            sends_temperature = false
            tokenizer = "~/tokenizer.json"

            [facts."my.model"]
            context_window = 65_536
            as_of = 2026-01-01
            """,
        )
    )
    assert (config.model, config.max_usd, config.max_tokens, config.max_calls, config.max_seconds) == (
        "house",
        1.0,
        2_000_000,
        400,
        90.5,
    )
    entry = config.models["house"]
    assert entry.prices.prices().output == 4.0
    assert entry.structured == "json_object"
    assert entry.extra_body["chat_template_kwargs"] == {"enable_thinking": False}
    assert config.path == tmp_path / "config.toml"
    assert config.located(entry.key_file) == tmp_path / "house.key"
    assert config.located(entry.tokenizer) == Path.home() / "tokenizer.json"
    assert config.located(Path("/abs/key")) == Path("/abs/key")
    assert config.facts_table().named("My.Model").context_window == 65_536


@pytest.mark.parametrize(
    ("said", "limit"), [('"4 GB"', 4_000_000_000), ('"1.5gib"', 1_610_612_736), ("123", 123), ('"0"', 0)]
)
def test_what_is_kept_is_limited_in_bytes(tmp_path, said, limit):
    path = written(tmp_path, f'[kept_caches]\nlimit = {said}\nprecision = "int8"\n')
    kept = load_config(path).kept_caches
    assert (kept.limit, kept.precision, kept.write) == (limit, "int8", "always")


def test_no_file_is_fine_unless_it_was_named(tmp_path, monkeypatch):
    assert load_config() == Config()
    assert load_config().path is None
    with pytest.raises(ConfigFileError, match="there is no such file"):
        load_config(tmp_path / "none.toml")
    monkeypatch.setenv("LCDOC_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigFileError, match=r"none\.toml: there is no such file; correct LCDOC_CONFIG"):
        load_config()


def test_the_variable_and_the_users_folder_name_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LCDOC_CONFIG", str(written(tmp_path, 'model = "by-variable"')))
    assert load_config().model == "by-variable"
    monkeypatch.setenv("LCDOC_CONFIG", "  ")
    default = config_path()
    assert default.name == "config.toml" and default.parent.name == "lcdoc"


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigFileError, match="it cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'model = "caf\xe9"')
    with pytest.raises(ConfigFileError, match=r"latin\.toml: it is not UTF-8"):
        load_config(tmp_path / "latin.toml")


def test_syntax_errors_name_the_line(tmp_path):
    error = refusal(tmp_path, 'model = "a"\n\n[models.x\nurl = "b"\n')
    assert error.line == 3
    assert "line 3: not TOML" in str(error)
    assert isinstance(error, ModelConfigError)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('modle = "x"', 1, "modle is not known; did you mean model?"),
        ('\n\nmax_dollars_and_cents = "x"', 3, "max_dollars_and_cents is not known"),
        ('max_usd = "a lot"', 1, "max_usd should be a valid number"),
        ('[kept_caches]\nlimits = "4 GB"', 2, "kept_caches.limits is not known; did you mean limit?"),
        ('[kept_caches]\nlimit = "much"', 2, 'kept_caches.limit: is no size; write "4 GB"'),
        ("[kept_caches]\nlimit = -1", 2, "kept_caches.limit should be greater than or equal to 0"),
        ('[kept_caches]\nwrite = "never"', 2, "kept_caches.write should be 'always' or 'index'"),
        ("max_usd = nan", 1, "max_usd should be a finite number"),
        ("max_usd = -1", 1, "max_usd should be greater than or equal to 0"),
        ("max_calls = true", 1, "max_calls should be a valid integer"),
        ("max_tokens = 1.5", 1, "max_tokens should be a valid integer"),
        ("models = 3", 1, "models should be a valid table"),
        ('[models.a]\nurl = "http://h"\ncontext_widow = 3', 3, "did you mean context_window?"),
        ('[models."a.b"]\nurl = "http://h"\n\nconcurrency = 0', 4, "concurrency should be greater than 0"),
        ('[models.a]\nurl = "http://h"\nprofile = "tiny"', 3, "profile should be 'small' or 'large'"),
        (
            '[models.a]\nurl = "http://h"\nprices = { input = 1, outptu = 2 }',
            3,
            "outptu is not known; did you mean output?",
        ),
        ('[models.a]\nurl = "http://h"\nprices = { input = 1 }', 3, "prices.output is missing"),
        ("[facts.m]\nprice = 3", 2, "did you mean prices?"),
        ('[models.a]\nkey_env = "K"', 1, "has neither url nor model"),
        ('[models.a]\nurl = "http://h"\nkey_env = "K"\nkey_file = "f"', 3, "has both key_env and key_file"),
        ('[models.Offline]\nurl = "http://h"', 1, "means something already"),
        ('[models."openai/mine"]\nurl = "http://h"', 1, "means something already"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line_and_remedy(tmp_path, text, line, says):
    error = refusal(tmp_path, text)
    assert says in str(error)
    assert error.line == line
    assert f"line {line}:" in str(error)


@pytest.mark.parametrize("name", ["key", "api_key", "token", "KEY"])
def test_a_key_in_the_file_is_refused_without_showing_it(tmp_path, name):
    error = refusal(tmp_path, f'[models.a]\nurl = "http://h"\n{name} = "{SECRET}"')
    assert "key_env" in str(error) and "key_file" in str(error)
    assert error.line == 3


def test_a_key_in_place_of_its_variables_name_is_refused_without_showing_it(tmp_path):
    assert "not the name of a variable" in str(refusal(tmp_path, f'[models.a]\nurl = "http://h"\nkey_env = "{SECRET}"'))


@pytest.mark.parametrize(
    "header", ["Authorization", "X-Api-Key", "api-key", "Cookie", "Proxy-Authorization", "X-Auth-Token"]
)
def test_secrets_among_headers_are_refused(tmp_path, header):
    error = refusal(tmp_path, f'[models.a]\nurl = "http://h"\nheaders = {{ {header} = "{SECRET}" }}')
    assert "looks like a secret" in str(error) and "key_env" in str(error)


def test_headers_that_cannot_be_sent_are_refused(tmp_path):
    assert "not a header" in str(refusal(tmp_path, '[models.a]\nurl = "http://h"\nheaders = { "X Y" = "1" }'))
    assert "not a header" in str(refusal(tmp_path, '[models.a]\nurl = "http://h"\nheaders = { X = "a\\nb" }'))


def test_secrets_deep_in_the_extra_body_are_refused(tmp_path):
    error = refusal(tmp_path, f'[models.a]\nurl = "http://h"\nextra_body = {{ a = [{{ api_key = "{SECRET}" }}] }}')
    assert "looks like a secret" in str(error)


def test_the_template_changes_nothing_as_it_stands_and_is_valid_when_uncommented(tmp_path):
    assert load_config(written(tmp_path, config_template())).model_dump() == Config().model_dump()
    uncommented = re.sub(r"^# (?=\[|\w+ = )", "", config_template(), flags=re.MULTILINE)
    config = load_config(written(tmp_path, uncommented))
    assert config.model == "house"
    assert set(config.models) == {"house", "cloud", "mini", "here"}
    assert config.models["here"].local
    assert config.models["cloud"].prices is not None
    assert config.facts["my-model"].context_window == 65_536
    commented = [line for line in config_template().splitlines() if line and not line.startswith("#")]
    assert commented == []
