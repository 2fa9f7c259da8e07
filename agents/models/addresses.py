"""Where a full name leads: to which server, for which model of it, with whose key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from rapidfuzz import fuzz, process

from lcdoc.agents.models.errors import ModelNameError
from lcdoc.agents.models.facts import FactsTable

KEY_VARIABLE: Final = "LCDOC_API_KEY"
OPENAI_URL: Final = "https://api.openai.com/v1"
OPENROUTER_URL: Final = "https://openrouter.ai/api/v1"
_OLLAMA_PORT: Final = 11434


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


def is_loopback(base_url: str) -> bool:
    """Whether an address is this machine's own."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(name: str, facts: FactsTable) -> Address | None:
    """Where a full name leads; None for one that is not. Raises ModelNameError."""
    if re.match(r"https?:", name, re.IGNORECASE):
        return url_address(name)
    prefix, slash, model = name.partition("/")
    prefix, model = prefix.lower(), model.strip()
    if not slash or prefix not in {"openai", "openrouter", "ollama"}:
        return None
    if not model:
        raise ModelNameError(name, "the model's name is missing", f"name it behind the slash: {prefix}/NAME")
    if prefix == "openai":
        return _openai_address(name, model, facts)
    if prefix == "openrouter":
        # Its prices are its own: what OpenAI asks for the same model does not hold there.
        return Address(OPENROUTER_URL, model, model.split("/")[0], False, "OPENROUTER_API_KEY", key_required=True)
    return Address(_ollama_url(name), model, key_variable=KEY_VARIABLE)


def _openai_address(name: str, model: str, facts: FactsTable) -> Address:
    base_url, notes = OPENAI_URL, []
    if named := os.environ.get("OPENAI_BASE_URL", "").strip():
        base_url = _base_url(split_url(named, "OPENAI_BASE_URL"), "OPENAI_BASE_URL")
        notes.append(f"openai/ models are asked at {base_url}, as OPENAI_BASE_URL says")
    original = base_url == OPENAI_URL
    if original and facts.lookup(model, service="openai") is None:
        close = process.extractOne(model.lower(), facts.of_service("openai"), scorer=fuzz.ratio, score_cutoff=75)
        hint = f"; did you mean openai/{close[0]}?" if close else ""
        notes.append(f"nothing is known of {name}, its prices included{hint}")
    return Address(base_url, model, "openai", original, "OPENAI_API_KEY", key_required=original, notes=tuple(notes))


def url_address(name: str) -> Address:
    """Where an address leads that names its model behind a `#`. Raises ModelNameError."""
    url = split_url(name, "the address")
    base_url = _base_url(url, _shown(url))
    original = base_url == OPENAI_URL
    service = "openai" if original else None
    return Address(base_url, url.fragment.strip(), service, original, KEY_VARIABLE, key_required=original)


def _ollama_url(name: str) -> str:
    host = os.environ.get("OLLAMA_HOST", "").strip().strip("'\"")
    if not host:
        return f"http://127.0.0.1:{_OLLAMA_PORT}/v1"
    url = split_url(host if "://" in host else f"http://{host}", "OLLAMA_HOST")
    address = url.hostname or "127.0.0.1"
    # Where it listens on all addresses, it answers on this one.
    if address in {"0.0.0.0", "::"}:
        address = "127.0.0.1"
    port = url.port or (_OLLAMA_PORT if "://" not in host else None)
    at = f"[{address}]" if ":" in address else address
    if url.username is not None:
        raise _with_password("OLLAMA_HOST")
    return f"{url.scheme}://{at}{f':{port}' if port else ''}{url.path.rstrip('/')}/v1"


def split_url(text: str, shown: str) -> SplitResult:
    """The parts of an address. Raises ModelNameError, about `shown`, for what is none."""
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
