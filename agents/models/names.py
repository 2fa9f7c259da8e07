"""From a model's name to where it is asked, with which key, and what is known of it: before anything is sent.

`openai/NAME`, `openrouter/VENDOR/NAME`, `ollama/NAME`, `http(s)://HOST[:PORT][/v1][#NAME]`, `local/PATH` and the names
of the configuration. A paid service is asked only where its model was named in full, there or in the configuration.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rapidfuzz import fuzz, process

from lcdoc.agents.models.addresses import Address, address_of, is_loopback, split_url, url_address
from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelConfigError, ModelNameError
from lcdoc.agents.models.facts import FactsTable
from lcdoc.agents.models.keys import file_key, secret_headers, variable_key
from lcdoc.agents.models.local import LocalSource
from lcdoc.agents.models.local_files import PREFIX
from lcdoc.agents.models.local_specs import local_source, local_spec, local_target, with_recipe
from lcdoc.agents.models.model import ModelSpec
from lcdoc.agents.models.model_specs import spec_of
from lcdoc.agents.models.secrets import Key, SecretHeaders, scrub
from lcdoc.agents.models.timeouts import Timeouts

OFFLINE: Final = "offline"
"""Names no language model: answers are extracted."""
MODEL_VARIABLE: Final = "LCDOC_MODEL"


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
    secret_headers: SecretHeaders = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    attempts: int | None = None
    """How often a request is tried; None: as the retry layer does."""
    origin: Origin | None = field(default=None, repr=False, compare=False)
    local: LocalSource | None = None
    """Where a model that runs inside lcdoc comes from."""
    entry: ModelEntry | None = field(default=None, repr=False, compare=False)
    """Of a local model: what the configuration says of it."""

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
        spec, notes = spec_of(name, address, self.origin.entry, self.origin.facts)
        return replace(self, spec=spec, notes=_once(*self.notes, *notes), origin=replace(self.origin, address=address))

    def at_folder(self, folder: Path) -> Chosen:
        """The same local model, where it has been fetched to."""
        if self.local is None:
            raise ValueError(f"{self.spec.name} is no local model")
        source = replace(self.local, folder=folder)
        spec, notes = local_spec(self.spec.name, source, self.entry)
        return replace(self, spec=spec, notes=notes, local=source)


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
    named, kv = with_recipe(name)
    if kv is not None and (entry := config.models.get(named)) is not None:
        return _recipe_of_entry(named, entry, config, kv)
    if (target := local_target(name)) is not None:
        return _local(named, local_target(named) or target, None, config, kv)
    facts = config.facts_table()
    address = address_of(name, facts)
    if address is None:
        raise _unknown(name, config, facts)
    spec, notes = spec_of(name, address, None, facts)
    key = variable_key(name, address)
    notes = _once(*address.notes, *notes, *_in_the_clear(address, sent=key is not None))
    return Chosen(spec, key, notes, origin=Origin(address, None, facts))


def _recipe_of_entry(name: str, entry: ModelEntry, config: Config, kv: str) -> Chosen:
    target = local_target((entry.model or "").strip()) if entry.local else None
    if target is None:
        raise not_local(name)
    return _local(name, target, entry, config, kv)


def not_local(name: str) -> ModelConfigError:
    """The error for a recipe where there is no cache of ours."""
    return ModelConfigError(
        scrub(name), "its cache is not ours to compress", "take --kv off, or a model that runs here: local/PATH"
    )


def with_kv(name: str | None, kv: str, config: Config) -> str:
    """The name of the model that `wanted` names, with the recipe of its cache. Raises ModelConfigError."""
    model = wanted(name, config)
    if model not in config.models:
        model, _ = with_recipe(model)
    entry = config.models.get(model)
    if not (model.lower().startswith(PREFIX) if entry is None else entry.local):
        raise not_local(model)
    return f"{model}#{kv}"


def _local(name: str, target: str, entry: ModelEntry | None, config: Config, kv: str | None = None) -> Chosen:
    name, source = local_source(name, target, entry, config, kv)
    spec, notes = local_spec(name, source, entry)
    return Chosen(spec, None, notes, local=source, entry=entry)


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
    forms = "openai/NAME, openrouter/VENDOR/NAME, ollama/NAME, http://HOST:PORT/v1#NAME, local/FOLDER, offline"
    own = f", or of the configuration: {', '.join(config.models)}" if config.models else ""
    return ModelNameError(shown, "no such model", f"names are {forms}{own}")


def _configured(name: str, entry: ModelEntry, config: Config) -> Chosen:
    if entry.local and (target := local_target((entry.model or "").strip())) is not None:
        return _local(name, target, entry, config)
    facts = config.facts_table()
    if entry.url is not None:
        url = split_url(entry.url, name)
        if url.fragment:
            raise ModelConfigError(name, "its url holds a model's name", 'put it into model = "..."')
        # Such a server gets the key that its entry names, and no other.
        address = replace(url_address(entry.url), model=(entry.model or "").strip(), key_variable=None)
    else:
        full = (entry.model or "").strip()
        found = None if full in config.models or is_offline(full) else address_of(full, facts)
        if found is None:
            remedy = 'give the whole name, such as "openai/gpt-4.1-mini", or the server\'s url'
            raise ModelConfigError(name, f"its model {full} is not a full name", remedy)
        address = found
    spec, notes = spec_of(name, address, entry, facts)
    key, key_notes = _entry_key(name, entry, address, config)
    tokenizer = None if entry.tokenizer is None else config.located(entry.tokenizer)
    if tokenizer is not None and not tokenizer.is_file():
        raise ModelConfigError(name, f"its tokenizer {tokenizer} is not a file", "correct the path")
    headers = secret_headers(name, entry.header_env)
    in_the_clear = _in_the_clear(address, sent=key is not None or bool(headers))
    return Chosen(
        spec,
        key,
        _once(*address.notes, *notes, *key_notes, *in_the_clear),
        tokenizer,
        headers,
        _timeouts(entry),
        entry.attempts,
        Origin(address, entry, facts),
    )


def _timeouts(entry: ModelEntry) -> Timeouts:
    usual = Timeouts()
    return Timeouts(
        connect_s=entry.connect_timeout_s or usual.connect_s,
        first_token_s=entry.first_token_timeout_s or usual.first_token_s,
        idle_s=entry.idle_timeout_s or usual.idle_s,
        total_s=entry.answer_timeout_s,
    )


def _entry_key(name: str, entry: ModelEntry, address: Address, config: Config) -> tuple[Key | None, tuple[str, ...]]:
    if entry.key_file is not None:
        return file_key(name, config.located(entry.key_file))
    if entry.key_env is not None:
        return variable_key(name, replace(address, key_variable=entry.key_env, key_required=True)), ()
    if address.key_variable is None and address.key_required:
        raise ModelConfigError(name, f"{address.base_url} needs a key", 'add key_env = "OPENAI_API_KEY" to its entry')
    return variable_key(name, address), ()


def _in_the_clear(address: Address, *, sent: bool) -> tuple[str, ...]:
    if not sent or address.base_url.startswith("https:") or is_loopback(address.base_url):
        return ()
    return (f"the key and the documents go to {address.base_url} unencrypted; use https:// where it is offered",)


def _once(*notes: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))
