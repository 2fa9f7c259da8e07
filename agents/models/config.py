"""The user's configuration file: models by short names, default caps, facts that lcdoc does not know.

It holds no keys: it names the variable or the file that does, so that it can be shown, copied and committed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from rapidfuzz import fuzz, process

from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.facts import Facts, FactsTable, PriceFacts, shipped_facts
from lcdoc.agents.models.kept_settings import KeptCaches
from lcdoc.agents.models.model import Profile, StructuredMode

CONFIG_VARIABLE = "LCDOC_CONFIG"

_SECRET_NAME = re.compile(r"auth|cookie|secret|passw|credential|(?:^|[-_])(?:api[-_]?)?key$|token$", re.IGNORECASE)
_KEY_FIELDS = frozenset({"key", "api_key", "apikey", "token", "secret", "password"})
_NO_KEYS = 'keys do not belong in this file; name the variable (key_env = "...") or the file (key_file = "...") with it'
_NO_SECRET_HEADERS = (
    "keys do not belong in this file; name the variable that holds it "
    '(key_env = "...", or header_env = { NAME = "..." } for a header of its own)'
)
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class ConfigFileError(ModelConfigError):
    """The configuration file cannot be read or does not fit. `line` counts from 1; None: it cannot be told."""

    def __init__(self, path: Path, problem: str, remedy: str = "", *, line: int | None = None) -> None:
        super().__init__(f"configuration {path}", problem, remedy)
        self.path = path
        self.line = line
        where = f"{path}, line {line}" if line else f"{path}"
        message = f"configuration {where}: {problem}"
        self.args = (f"{message}; {remedy}" if remedy else message,)


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise PydanticCustomError("variable", "is not the name of a variable; the key itself does not belong here")
    return name


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _open_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if _SECRET_NAME.search(name):
            raise PydanticCustomError(
                "secret", "{name} looks like a secret; {remedy}", {"name": name, "remedy": _NO_SECRET_HEADERS}
            )
        if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise PydanticCustomError("header", "{name} is not a header that can be sent", {"name": name})
    return headers


def _secret_headers(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _HEADER_NAME.fullmatch(name):
            raise PydanticCustomError("header", "{name} is not a header that can be sent", {"name": name})
    return variables


def _open_body(body: dict[str, Any]) -> dict[str, Any]:
    for name in _names_in(body):
        # `max_tokens` and the like are counts, not secrets.
        if _SECRET_NAME.search(name) and not name.endswith("tokens"):
            raise PydanticCustomError(
                "secret", "{name} looks like a secret; {remedy}", {"name": name, "remedy": _NO_KEYS}
            )
    return body


def _names_in(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names_in(inner)


_Variable = Annotated[str, AfterValidator(_variable)]
_Path = Annotated[Path, Field(strict=False)]
_Count = Annotated[int, Field(gt=0)]
_Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Seconds = _Amount


class ModelEntry(BaseModel):
    """`[models.NAME]`: a model under a name of one's own."""

    model_config = _STRICT

    url: str | None = None
    """The server's address; None: `model` is a full name such as `openai/gpt-4.1-mini`."""
    model: str | None = None
    """The model's name at the server; None: the only one it lists."""
    like: str | None = None
    """A known model whose facts hold for this one, its prices included."""
    key_env: _Variable | None = None
    key_file: _Path | None = None
    context_window: _Count | None = None
    max_output_tokens: _Count | None = None
    prices: PriceFacts | None = None
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    concurrency: _Count | None = None
    profile: Profile | None = None
    structured: StructuredMode | None = None
    headers: Annotated[dict[str, str], AfterValidator(_open_headers)] = {}
    header_env: Annotated[dict[str, _Variable], AfterValidator(_secret_headers)] = {}
    """Headers with secret values, each by the variable that holds its value."""
    extra_body: Annotated[dict[str, Any], AfterValidator(_open_body)] = {}
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    sends_temperature: bool | None = None
    tokenizer: _Path | None = None
    """A tokenizer.json, for exact counts."""
    connect_timeout_s: _Seconds | None = None
    first_token_timeout_s: _Seconds | None = None
    idle_timeout_s: _Seconds | None = None
    answer_timeout_s: _Seconds | None = None
    attempts: _Count | None = None
    """How often a request is tried, the first time included."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    """Of a `local/` model, as `quantize`, `device` and `max_memory` are."""
    quantize: Literal["int8", "int4"] | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] | None = None
    max_memory: _Amount | None = None
    """Bytes for its cache, or a share of the free memory up to 1."""
    kv: str | None = None
    """How its cache is compressed, such as "snapkv+ada@0.25"; `lcdoc kv list` shows the parts."""
    rope: str | None = None
    """How its window is stretched: "yarn:length=32768" or "yarn:factor=4"; linear, ntk and dynamic as well."""

    @property
    def local(self) -> bool:
        """Whether the model runs inside lcdoc."""
        return self.url is None and (self.model or "").strip().lower().startswith("local/")


_LOCAL_ONLY = ("dtype", "quantize", "device", "max_memory", "kv", "rope")
_OF_LOCAL = ("model", "context_window", "max_output_tokens", "prices", "concurrency", "profile", *_LOCAL_ONLY)


class Config(BaseModel):
    """The whole file. The caps hold for each question where none is given with it."""

    model_config = _STRICT

    model: str | None = None
    """The model that is used where none is named."""
    max_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=0)
    max_calls: int | None = Field(default=None, ge=0)
    max_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    kept_caches: KeptCaches = KeptCaches()
    models: dict[str, ModelEntry] = {}
    facts: dict[str, Facts] = {}

    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The file it was read from; None: there is none."""
        return self._path

    def located(self, path: Path) -> Path:
        """A path of the configuration, `~` expanded and relative to its folder."""
        path = path.expanduser()
        return path if self._path is None else self._path.parent / path

    def facts_table(self) -> FactsTable:
        """The shipped table, extended by `[facts]`."""
        return shipped_facts().extended(self.facts) if self.facts else shipped_facts()


def config_path() -> Path:
    """Where the configuration is looked for: `$LCDOC_CONFIG`, else the user's configuration folder."""
    if named := os.environ.get(CONFIG_VARIABLE, "").strip():
        return Path(named).expanduser()
    from platformdirs import user_config_path

    return user_config_path("lcdoc", appauthor=False) / "config.toml"


def load_config(path: Path | None = None) -> Config:
    """The configuration at `path`, by default at `config_path()`. Raises ConfigFileError.

    That there is none is fine, unless it was named, by `path` or the variable.
    """
    named = path is not None or bool(os.environ.get(CONFIG_VARIABLE, "").strip())
    path = (path or config_path()).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not named:
            return Config()
        remedy = f"correct {CONFIG_VARIABLE}" if os.environ.get(CONFIG_VARIABLE) else "name another"
        raise ConfigFileError(
            path, "there is no such file", f"{remedy}, or make it with `lcdoc models --init`"
        ) from None
    except OSError as error:
        raise ConfigFileError(path, f"it cannot be read ({error.strerror})", "make it a readable file") from error
    except UnicodeDecodeError as error:
        raise ConfigFileError(path, "it is not UTF-8 text", "save it as UTF-8") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = str(error)
        at = re.search(r"\s*\(at line (\d+), column (\d+)\)", problem)
        shown = problem.replace(at[0], f" in column {at[2]}") if at else problem
        raise ConfigFileError(path, f"not TOML: {shown}", line=int(at[1]) if at else None) from None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        # The chained error would show values, and with them perhaps a key.
        raise _misfit(path, text, error.errors(include_url=False)) from None
    config._path = path.absolute()
    _check_names(config, path, text)
    return config


RESERVED = ("openai/", "openrouter/", "ollama/", "local/", "http://", "https://")
"""Beginnings of names that mean something already."""


def _check_names(config: Config, path: Path, text: str) -> None:
    for name, entry in config.models.items():
        problem, remedy, field = "", "", ""
        if name.strip().lower() == "offline" or name.lower().startswith(RESERVED) or name != name.strip() or not name:
            problem, remedy = "means something already", "choose another name"
        elif entry.key_env and entry.key_file:
            problem, remedy, field = "has both key_env and key_file", "keep one of them", "key_env"
        elif entry.url is None and entry.model is None:
            problem, remedy = "has neither url nor model", 'add url = "http://HOST:PORT/v1"'
        elif entry.local and (other := next((one for one in entry.model_fields_set if one not in _OF_LOCAL), None)):
            problem, remedy, field = f"has {other}, and a model that runs here has no server", "take it out", other
        elif not entry.local and (other := next((one for one in _LOCAL_ONLY if one in entry.model_fields_set), None)):
            problem, field = f"has {other}, which only models that run here have", other
            remedy = 'take it out, or name the model\'s folder: model = "local/PATH"'
        if problem:
            at = ("models", name, field) if field else ("models", name)
            raise ConfigFileError(path, f"models.{name} {problem}", remedy, line=_line_of(text, at))


def _misfit(path: Path, text: str, errors: list[ErrorDetails]) -> ConfigFileError:
    """The first thing that does not fit, in words; values are not shown."""
    # A misspelt key is also a missing one; the misspelling is what helps.
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    at = tuple(str(part) for part in error["loc"])
    key, line = ".".join(at), _line_of(text, at)
    if error["type"] == "extra_forbidden":
        if at[0] == "models" and at[-1].lower() in _KEY_FIELDS:
            return ConfigFileError(path, f"{key}: {_NO_KEYS}", line=line)
        siblings = _fields_at(at[:-1])
        close = process.extractOne(at[-1], siblings, scorer=fuzz.ratio, score_cutoff=60)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(siblings)}"
        return ConfigFileError(path, f"{key} is not known", hint, line=line)
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] in {"variable", "secret", "header", "size"}:
        return ConfigFileError(path, f"{key}: {message}", line=line)
    if error["type"] == "missing":
        return ConfigFileError(path, f"{key} is missing", line=line)
    message = message.removeprefix("input ").replace("dictionary", "table").replace("list", "array")
    return ConfigFileError(path, f"{key} {message}", line=line)


def _fields_at(at: tuple[str, ...]) -> list[str]:
    """The keys that may stand in the table at `at`."""
    tables: dict[str, type[BaseModel]] = {"models": ModelEntry, "facts": Facts}
    if at == ("kept_caches",):
        return list(KeptCaches.model_fields)
    table: type[BaseModel] = tables[at[0]] if at and at[0] in tables else Config
    return list((PriceFacts if at[-1:] == ("prices",) else table).model_fields)


def _line_of(text: str, at: tuple[str, ...]) -> int | None:
    """The line, from 1, on which the deepest part of the key `at` is set; None where the file is written otherwise."""
    table: tuple[str, ...] = ()
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            table = here = _path_in(bare)
        elif "=" in bare and not bare.startswith("#"):
            here = table + _path_in(f"{bare.split('=', 1)[0]}= 0")
        else:
            continue
        if here and at[: len(here)] == here and (best is None or len(here) > best[0]):
            best = (len(here), number)
    return best[1] if best else None


def _path_in(line: str) -> tuple[str, ...]:
    """The key that one line of TOML sets or opens."""
    try:
        value: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(value, dict) and value:
        name, value = next(iter(cast("dict[str, object]", value).items()))
        path.append(name)
    return tuple(path)


def config_template() -> str:
    """A sample of the file: everything is commented out, so that it changes nothing as it stands."""
    return files("lcdoc.agents.models").joinpath("config_template.toml").read_text(encoding="utf-8")
