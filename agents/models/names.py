"""From a model's name to where it is asked, with which key, and what is known of it: before anything is sent.

`openai/NAME`, `openrouter/VENDOR/NAME`, `ollama/NAME`, `http(s)://HOST[:PORT][/v1][#NAME]` and the names of the
configuration. A paid service is asked only where its model was named in full, there or in the configuration.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from rapidfuzz import fuzz, process

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelConfigError, ModelNameError
from lcdoc.agents.models.facts import Facts, FactsTable
from lcdoc.agents.models.model import ModelSpec, Prices, RateLimits, Server
from lcdoc.agents.models.secrets import Key, scrub

OFFLINE = "offline"
"""Names no language model: answers are extracted."""
MODEL_VARIABLE = "LCDOC_MODEL"
KEY_VARIABLE = "LCDOC_API_KEY"
ASSUMED_WINDOW = 8_192
"""Tokens taken for the window where nothing is known of it."""

OPENAI_URL = "https://api.openai.com/v1"
OPENROUTER_URL = "https://openrouter.ai/api/v1"
_OLLAMA_PORT = 11434
_MAX_KEY_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Address:
    """Where a name leads."""

    base_url: str
    model: str
    """The model's name at the server; empty: the only one it lists."""
    service: str | None = None
    """The hosted service whose facts hold for the model; None: a server of one's own."""
    original: bool = False
    """The service itself is asked, at its own address, so its prices and windows hold."""
    key_variable: str | None = None
    key_required: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a `Chosen` was made from."""

    address: Address
    entry: ModelEntry | None
    facts: FactsTable


@dataclass(frozen=True, slots=True)
class Chosen:
    """A model that can be asked. `spec.server.model` is empty where the server is yet to name its only model, and
    `spec.context_window_known` false where it may say more: `lcdoc.agents.models.discovery.resolve_online` asks it."""

    spec: ModelSpec
    key: Key | None
    notes: tuple[str, ...]
    """What the user should know, one line each."""
    tokenizer: Path | None = None
    """A tokenizer.json that the configuration names."""
    origin: Origin | None = field(default=None, repr=False, compare=False)

    @property
    def longest_prompt(self) -> int | None:
        """Tokens beyond which the model refuses a prompt, or its prices do not hold; None: not known of any."""
        if self.origin is None:
            return None
        address = self.origin.address
        facts = self.origin.facts.lookup(address.model, service=address.service)
        return facts.max_prompt_tokens if facts else None

    def at_model(self, model: str) -> Chosen:
        """The same, for the model that its server lists."""
        if self.origin is None:
            raise ValueError(f"{self.spec.name} was not made by resolve()")
        address = replace(self.origin.address, model=model)
        # A short name of the configuration goes on naming it; an address alone does not.
        name = self.spec.name if self.origin.entry is not None else f"{address.base_url}#{model}"
        spec, notes = _spec(name, address, self.origin.entry, self.origin.facts)
        return replace(self, spec=spec, notes=_once(*self.notes, *notes), origin=replace(self.origin, address=address))


def is_offline(name: str) -> bool:
    """Whether `name` names no language model."""
    return name.strip().lower() == OFFLINE


def wanted(name: str | None, config: Config) -> str:
    """The name that counts: `name`, else $LCDOC_MODEL, else the configuration's `model`, else `offline`."""
    for given in (name, os.environ.get(MODEL_VARIABLE), config.model):
        if given is not None and given.strip():
            return given.strip()
    return OFFLINE


def resolve(name: str | None, config: Config) -> Chosen:
    """The model that `wanted(name, config)` names. Nothing is sent.

    Raises ModelNameError for a name that is none, `offline` among them (see `is_offline`); ModelConfigError for a key
    or another thing the name needs and does not find.
    """
    name = wanted(name, config)
    if is_offline(name):
        raise ModelNameError(OFFLINE, "it names no language model", "name one, such as http://127.0.0.1:8080/v1")
    if (entry := config.models.get(name)) is not None:
        return _configured(name, entry, config)
    facts = config.facts_table()
    address = _address(name, facts)
    if address is None:
        raise _unknown(name, config, facts)
    spec, notes = _spec(name, address, None, facts)
    key = _variable_key(name, address)
    return Chosen(
        spec, key, _once(*address.notes, *notes, *_in_the_clear(address, key)), origin=Origin(address, None, facts)
    )


def is_loopback(base_url: str) -> bool:
    """Whether an address is this machine's own."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# --- names -----------------------------------------------------------------------------------------------------------


def _address(name: str, facts: FactsTable) -> Address | None:
    """Where a full name leads; None for one that is not."""
    if re.match(r"https?:", name, re.IGNORECASE):
        return _url_address(name)
    prefix, slash, model = name.partition("/")
    prefix, model = prefix.lower(), model.strip()
    if not slash or prefix not in {"openai", "openrouter", "ollama", "local"}:
        return None
    if not model:
        raise ModelNameError(name, "the model's name is missing", f"name it behind the slash: {prefix}/NAME")
    if prefix == "openai":
        return _openai_address(name, model, facts)
    if prefix == "openrouter":
        # Its prices are its own: what OpenAI asks for the same model does not hold there.
        return Address(OPENROUTER_URL, model, model.split("/")[0], False, "OPENROUTER_API_KEY", key_required=True)
    if prefix == "ollama":
        return Address(_ollama_url(name), model, key_variable=KEY_VARIABLE)
    raise ModelNameError(
        scrub(name),
        "this build has no engine of its own for local/ models",
        "serve the file with llama.cpp (llama-server -m FILE), vLLM, SGLang, LM Studio or Ollama, and name that "
        "server: http://127.0.0.1:8080/v1",
    )


def _openai_address(name: str, model: str, facts: FactsTable) -> Address:
    base_url, notes = OPENAI_URL, []
    if named := os.environ.get("OPENAI_BASE_URL", "").strip():
        base_url = _base_url(_split(named, "OPENAI_BASE_URL"), "OPENAI_BASE_URL")
        notes.append(f"openai/ models are asked at {base_url}, as OPENAI_BASE_URL says")
    original = base_url == OPENAI_URL
    if original and facts.lookup(model, service="openai") is None:
        close = process.extractOne(model.lower(), facts.of_service("openai"), scorer=fuzz.ratio, score_cutoff=75)
        hint = f"; did you mean openai/{close[0]}?" if close else ""
        notes.append(f"nothing is known of {name}, its prices included{hint}")
    return Address(base_url, model, "openai", original, "OPENAI_API_KEY", key_required=original, notes=tuple(notes))


def _url_address(name: str) -> Address:
    url = _split(name, "the address")
    base_url = _base_url(url, _shown(url))
    original = base_url == OPENAI_URL
    service = "openai" if original else None
    return Address(base_url, url.fragment.strip(), service, original, KEY_VARIABLE, key_required=original)


def _ollama_url(name: str) -> str:
    host = os.environ.get("OLLAMA_HOST", "").strip().strip("'\"")
    if not host:
        return f"http://127.0.0.1:{_OLLAMA_PORT}/v1"
    url = _split(host if "://" in host else f"http://{host}", "OLLAMA_HOST")
    address = url.hostname or "127.0.0.1"
    # Where it listens on all addresses, it answers on this one.
    if address in {"0.0.0.0", "::"}:
        address = "127.0.0.1"
    port = url.port or (_OLLAMA_PORT if "://" not in host else None)
    at = f"[{address}]" if ":" in address else address
    if url.username is not None:
        raise _with_password("OLLAMA_HOST")
    return f"{url.scheme}://{at}{f':{port}' if port else ''}{url.path.rstrip('/')}/v1"


def _split(text: str, shown: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        _ = url.port
    except ValueError:
        # What does not parse may hold a password in any place, so none of it is shown.
        raise ModelNameError(shown, "it cannot be read as one", "write it as http://HOST:PORT/v1#NAME") from None
    return url


def _shown(url: SplitResult) -> str:
    """The address for messages: without what may be a password or a key."""
    at = url.netloc.rpartition("@")[2]
    if not at or "@" in url.path:
        return "the address"
    return f"{url.scheme}://{at}{url.path}" + (f"#{url.fragment}" if url.fragment else "")


def _with_password(shown: str) -> ModelNameError:
    return ModelNameError(
        shown,
        "the address holds a user name or password, which would end up in logs",
        f"remove it and put the key into {KEY_VARIABLE}, or into key_env or key_file of the configuration",
    )


def _base_url(url: SplitResult, shown: str) -> str:
    """The address up to and with the version, in one spelling."""
    # A password with a slash in it puts the @ into the path.
    if url.username is not None or "@" in url.path:
        raise _with_password(shown)
    if url.scheme.lower() not in {"http", "https"} or not url.hostname:
        raise ModelNameError(shown, "not an address", "write it as http://HOST:PORT/v1#NAME")
    if url.query:
        raise ModelNameError(
            shown, "an address with a query (?...) is not asked", "use headers or extra_body of the configuration"
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    scheme = url.scheme.lower()
    port = "" if url.port in {None, {"http": 80, "https": 443}[scheme]} else f":{url.port}"
    path = re.sub(r"/+", "/", url.path).rstrip("/").removesuffix("/chat/completions")
    return f"{scheme}://{host}{port}{path or '/v1'}"


def _unknown(name: str, config: Config, facts: FactsTable) -> ModelNameError:
    """The error for a name that leads nowhere, with what may have been meant. A bare name never calls a service."""
    shown = scrub(name)
    if re.match(r"(?:localhost|[\w.-]+):\d{2,5}(?:[/#]|$)", name):
        return ModelNameError(shown, "an address needs its scheme", f"did you mean http://{name}?")
    known, bare = facts.named(name), name.rpartition("/")[2].lower()
    if known is not None and known.service == "openai":
        return ModelNameError(shown, "not a full name", f"did you mean openai/{bare}?")
    candidates = {each.lower(): each for each in config.models}
    for model in facts.of_service("openai"):
        candidates.setdefault(model, f"openai/{model}")
        candidates.setdefault(f"openai/{model}", f"openai/{model}")
    candidates.setdefault(OFFLINE, OFFLINE)
    close = process.extractOne(name.lower(), list(candidates), scorer=fuzz.ratio, score_cutoff=72)
    if close is not None:
        return ModelNameError(shown, "no such model", f"did you mean {candidates[close[0]]}?")
    if known is not None or facts.family(bare) is not None:
        remedy = f"name the server that has it: http://127.0.0.1:8080/v1#{shown}, or ollama/{shown}"
        return ModelNameError(shown, "not a full name", remedy)
    forms = "openai/NAME, openrouter/VENDOR/NAME, ollama/NAME, http://HOST:PORT/v1#NAME, offline"
    own = f", or of the configuration: {', '.join(config.models)}" if config.models else ""
    return ModelNameError(shown, "no such model", f"names are {forms}{own}")


# --- the configuration's models --------------------------------------------------------------------------------------


def _configured(name: str, entry: ModelEntry, config: Config) -> Chosen:
    facts = config.facts_table()
    if entry.url is not None:
        url = _split(entry.url, name)
        if url.fragment:
            raise ModelConfigError(name, "its url holds a model's name", 'put it into model = "..."')
        # Such a server gets the key that its entry names, and no other.
        address = replace(_url_address(entry.url), model=(entry.model or "").strip(), key_variable=None)
    else:
        full = (entry.model or "").strip()
        found = None if full in config.models or is_offline(full) else _address(full, facts)
        if found is None:
            remedy = 'give the whole name, such as "openai/gpt-4.1-mini", or the server\'s url'
            raise ModelConfigError(name, f"its model {full} is not a full name", remedy)
        address = found
    spec, notes = _spec(name, address, entry, facts)
    key, key_notes = _entry_key(name, entry, address, config)
    tokenizer = None if entry.tokenizer is None else config.located(entry.tokenizer)
    if tokenizer is not None and not tokenizer.is_file():
        raise ModelConfigError(name, f"its tokenizer {tokenizer} is not a file", "correct the path")
    notes = _once(*address.notes, *notes, *key_notes, *_in_the_clear(address, key))
    return Chosen(spec, key, notes, tokenizer, Origin(address, entry, facts))


def _entry_key(name: str, entry: ModelEntry, address: Address, config: Config) -> tuple[Key | None, tuple[str, ...]]:
    if entry.key_file is not None:
        return _file_key(name, config.located(entry.key_file))
    if entry.key_env is not None:
        return _variable_key(name, replace(address, key_variable=entry.key_env, key_required=True)), ()
    if address.key_variable is None and address.key_required:
        raise ModelConfigError(name, f"{address.base_url} needs a key", 'add key_env = "OPENAI_API_KEY" to its entry')
    return _variable_key(name, address), ()


# --- keys ------------------------------------------------------------------------------------------------------------


def _variable_key(name: str, address: Address) -> Key | None:
    variable = address.key_variable
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        if not address.key_required:
            return None
        hint = ""
        if variable == KEY_VARIABLE and address.original:
            hint = f", or name the model openai/{address.model or 'NAME'} to use OPENAI_API_KEY"
        raise ModelConfigError(name, f"{variable} is not set", f"set it to your key for {address.base_url}{hint}")
    return _key(name, value, f"the variable {variable}")


def _file_key(name: str, path: Path) -> tuple[Key, tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MAX_KEY_BYTES + 1)
    except OSError as error:
        problem = f"its key file {path} cannot be read ({error.strerror})"
        raise ModelConfigError(name, problem, "correct key_file, or make the file readable") from error
    if len(raw) > _MAX_KEY_BYTES:
        raise ModelConfigError(
            name, f"its key file {path} is too long for a key", "let it hold the key and nothing else"
        )
    value = raw.decode("utf-8", "replace").strip()
    if not value:
        raise ModelConfigError(name, f"its key file {path} is empty", "write the key into it")
    notes: tuple[str, ...] = ()
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        notes = (f"other users of this machine can reach the key file {path}; `chmod 600` keeps them out",)
    return _key(name, value, f"the file {path}"), notes


def _key(name: str, value: str, source: str) -> Key:
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ModelConfigError(name, f"what {source} holds is not a key", "it is one line of plain letters and digits")
    return Key(value, source=source)


def _in_the_clear(address: Address, key: Key | None) -> tuple[str, ...]:
    if key is None or address.base_url.startswith("https:") or is_loopback(address.base_url):
        return ()
    return (f"the key and the documents go to {address.base_url} unencrypted; use https:// where it is offered",)


# --- what is known ---------------------------------------------------------------------------------------------------


def _spec(
    name: str, address: Address, entry: ModelEntry | None, table: FactsTable
) -> tuple[ModelSpec, tuple[str, ...]]:
    """What is known of the model before it is asked: configuration before facts."""
    entry = entry or ModelEntry()
    facts, certain = _facts(name, address, entry, table)
    # Where the window is the family's, the server may have narrowed it.
    window = entry.context_window or facts.usable_window
    prices, notes = _prices(name, address, entry, facts)
    server = Server(
        base_url=address.base_url,
        model=address.model,
        structured=entry.structured,
        max_tokens_field=entry.max_tokens_field or facts.max_tokens_field or "max_tokens",
        sends_temperature=_first(entry.sends_temperature, facts.sends_temperature, True),
        headers=tuple(entry.headers.items()),
        extra_body=tuple(entry.extra_body.items()),
    )
    spec = ModelSpec(
        name=name,
        context_window=window or ASSUMED_WINDOW,
        server=server,
        context_window_known=entry.context_window is not None or (certain and window is not None),
        max_output_tokens=entry.max_output_tokens or facts.max_output_tokens,
        prices=prices,
        limits=RateLimits(
            entry.requests_per_minute, entry.tokens_per_minute, entry.concurrency or RateLimits().concurrency
        ),
        profile=entry.profile or facts.profile or "large",
    )
    return spec, notes


def _facts(name: str, address: Address, entry: ModelEntry, table: FactsTable) -> tuple[Facts, bool]:
    """The facts that hold, and whether their window does so for certain."""
    if entry.like is not None:
        like = entry.like.strip()
        named, family = table.named(like), table.family(like)
        if named is None and family is None:
            close = process.extractOne(like.lower(), list(table.models), scorer=fuzz.ratio, score_cutoff=60)
            hint = f"did you mean {close[0]}?" if close else "take it out and give context_window and prices"
            raise ModelConfigError(name, f"nothing is known of {like}, which it is said to be like", hint)
        facts = (named or Facts()).over(family)
        # They were asked for, so they hold here as they do at the service.
        return facts.model_copy(update={"service": None}), named is not None
    named = table.named(address.model)
    if named is not None and named.service not in {None, address.service}:
        named = None
    certain = named is not None and named.context_window is not None and (named.service is None or address.original)
    return table.lookup(address.model, service=address.service) or Facts(), certain


def _prices(name: str, address: Address, entry: ModelEntry, facts: Facts) -> tuple[Prices | None, tuple[str, ...]]:
    if entry.prices is not None:
        return entry.prices.prices(), ()
    if facts.prices is None or not (facts.service is None or address.original):
        return None, ()
    if entry.context_window and facts.max_prompt_tokens and entry.context_window > facts.max_prompt_tokens:
        limit = f"{facts.max_prompt_tokens:,}"
        return None, (f"the known prices of {name} hold for prompts up to {limit} tokens, so its costs are not known",)
    return facts.prices.prices(), ()


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)


def _once(*notes: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))
