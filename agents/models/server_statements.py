"""What a server says of itself: which models it has, and how long their window is there.

OpenAI's protocol tells names only, so each kind of server is read by its own fields: `max_model_len` (vLLM, SGLang),
`context_length` and `pricing` (OpenRouter), `/props` (llama.cpp), `/api/v0/models` (LM Studio), `/api/ps` and
`/api/show` (Ollama). Nothing in an answer is trusted, and a server that answers none of it is no error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lcdoc.agents.models.addresses import is_loopback
from lcdoc.agents.models.model import Prices, Server
from lcdoc.agents.models.secrets import Key, SecretHeaders, scrub
from lcdoc.agents.models.server_fields import (
    is_same_model,
    listed_prices,
    model_name,
    object_in,
    objects_in,
    window_tokens,
)

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER_BYTES: Final = 16 * 2**20
MAX_MODELS: Final = 10_000
LISTED: Final = 10
"""Of many models, how many are named in a message."""
SET_WINDOW: Final = "set context_window for it in the configuration"
OLLAMA_DEFAULT_WINDOW: Final = 4_096
"""What Ollama gives a model where nobody says otherwise and the graphics memory is below 24 GiB."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a server said; None and empty: nothing that can be used."""

    models: tuple[str, ...] = ()
    context_window: int | None = None
    """Tokens of prompt and answer together, as the server runs the model now."""
    prices: Prices | None = None
    max_output_tokens: int | None = None
    notes: tuple[str, ...] = ()
    context_window_known: bool = True
    """False when `context_window` is not the server's statement but what such a server does by default."""


async def discover(
    server: Server, key: Key | None, *, secret_headers: SecretHeaders = (), timeout_s: float = 5.0
) -> Discovered:
    """Ask `server` for its models, and for the window of `server.model` (empty: of its only model).

    Never raises for what a server does or does not answer within `timeout_s`: `notes` say it.
    """
    import httpx2

    headers = {**dict(server.headers), **{name: value.reveal() for name, value in secret_headers}}
    if key is not None and "authorization" not in {name.lower() for name in headers}:
        headers["Authorization"] = f"Bearer {key.reveal()}"
    try:
        async with httpx2.AsyncClient(
            headers=headers,
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=not is_loopback(server.base_url),
        ) as client:
            asked = _Asked(client, server)
            try:
                async with asyncio.timeout(timeout_s):
                    await asked.all()
            except TimeoutError:
                asked.failed(f"it did not answer within {timeout_s:g} s")
    except (httpx2.HTTPError, httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
        # A proxy or a certificate file of the environment that cannot be used; the message may show a password.
        return Discovered(notes=(f"{server.base_url} could not be asked for its models ({type(error).__name__})",))
    return asked.found()


class _UnusableError(Exception):
    """An endpoint did not answer with what can be used; the message says how."""


class _UnreachableError(_UnusableError):
    """The server did not answer at all."""


@dataclass
class _Asked:
    """One server's answers so far."""

    client: httpx2.AsyncClient
    server: Server
    models: tuple[str, ...] = ()
    window: int | None = None
    window_known: bool = True
    prices: Prices | None = None
    max_output_tokens: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def root(self) -> str:
        """The address without the version, where servers keep what is not OpenAI's."""
        return self.server.base_url.removesuffix("/v1")

    @property
    def model(self) -> str:
        return self.server.model or (self.models[0] if len(self.models) == 1 else "")

    def found(self) -> Discovered:
        return Discovered(
            self.models, self.window, self.prices, self.max_output_tokens, tuple(self.notes), self.window_known
        )

    def failed(self, how: str) -> None:
        self.notes.append(f"{self.server.base_url} could not be asked for its models: {how}")

    async def all(self) -> None:
        try:
            answer = await self._json("GET", f"{self.server.base_url}/models")
        except _UnreachableError as error:
            self.failed(str(error))
            return
        except _UnusableError as error:
            self.failed(str(error))
            # Some servers have no list and yet say their window.
            await self._by_own_endpoints({})
            return
        entries = [entry for entry in objects_in(answer, "data") if model_name(entry)][:MAX_MODELS]
        self.models = tuple(dict.fromkeys(model_name(entry) for entry in entries))
        if not self.model:
            return
        entry = next((entry for entry in entries if is_same_model(model_name(entry), self.model)), {})
        if not entry and self.models:
            listed = ", ".join(self.models[:LISTED]) + (" ..." if len(self.models) > LISTED else "")
            self.notes.append(f"{self.server.base_url} does not list {self.model}; it lists {listed}")
        self._read_entry(entry)
        if self.window is None and urlsplit(self.server.base_url).hostname not in {"api.openai.com", "openrouter.ai"}:
            await self._by_own_endpoints(entry)

    def _read_entry(self, entry: Mapping[str, Any]) -> None:
        top = object_in(entry, "top_provider")
        windows = [entry.get("max_model_len"), entry.get("context_length"), entry.get("context_window")]
        windows += [top.get("context_length"), entry.get("loaded_context_length")]
        self.window = min(filter(None, map(window_tokens, windows)), default=None)
        self.max_output_tokens = window_tokens(top.get("max_completion_tokens"))
        self.prices = listed_prices(object_in(entry, "pricing"))

    async def _by_own_endpoints(self, entry: Mapping[str, Any]) -> None:
        """The window from what servers have beside the protocol; the likeliest kind is asked first."""
        if not self.model:
            return
        kinds = {"llamacpp": self._llama_cpp, "organization_owner": self._lm_studio, "library": self._ollama}
        owner = str(entry.get("owned_by", ""))
        if urlsplit(self.server.base_url).port == 11434:
            owner = "library"
        order = sorted(kinds, key=lambda kind: kind != owner)
        for kind in order:
            try:
                await kinds[kind]()
            except _UnusableError as error:
                _log.debug("%s is not read as %s: %s", self.server.base_url, kind, error)
            if self.window is not None:
                return
        trained = window_tokens(object_in(entry, "meta").get("n_ctx_train"))
        if trained is not None:
            self.notes.append(f"{self.model} was trained for {trained:,} tokens, the server may give it fewer")

    async def _llama_cpp(self) -> None:
        props = await self._json("GET", f"{self.root}/props")
        # The window of one slot: what a request gets when the server answers several at once.
        self.window = window_tokens(object_in(props, "default_generation_settings").get("n_ctx"))

    async def _lm_studio(self) -> None:
        listed = await self._json("GET", f"{self.root}/api/v0/models")
        for entry in objects_in(listed, "data"):
            if not is_same_model(model_name(entry), self.model):
                continue
            self.window = window_tokens(entry.get("loaded_context_length"))
            if self.window is None and (most := window_tokens(entry.get("max_context_length"))):
                self.notes.append(f"LM Studio has {self.model} not loaded; it can be given up to {most:,} tokens")

    async def _ollama(self) -> None:
        running = await self._json("GET", f"{self.root}/api/ps")
        if not isinstance(running, dict) or not isinstance(running.get("models"), list):
            raise _UnusableError("no list of running models")
        for entry in objects_in(running, "models"):
            if is_same_model(str(entry.get("model") or entry.get("name") or ""), self.model):
                self.window = window_tokens(entry.get("context_length"))
        if self.window is not None:
            return
        shown: object = {}
        try:
            shown = await self._json("POST", f"{self.root}/api/show", {"model": self.model})
        except _UnusableError as error:
            _log.debug("%s says nothing of %s: %s", self.root, self.model, error)
        parameters = shown.get("parameters") if isinstance(shown, dict) else None
        set_by_file = re.search(r"^num_ctx\s+(\d{1,9})\s*$", parameters if isinstance(parameters, str) else "", re.M)
        if set_by_file and (window := window_tokens(int(set_by_file[1]))):
            self.window = window
            return
        # A longer prompt is cut at its beginning without an error, so a wrong guess would lose text in silence.
        self.window, self.window_known = OLLAMA_DEFAULT_WINDOW, False
        trained = next(
            (window for name, value in object_in(shown, "model_info").items() if name.endswith(".context_length")
             and (window := window_tokens(value))),
            None,
        )  # fmt: skip
        most = f" of the {trained:,} it was trained for" if trained else ""
        self.notes.append(
            f"Ollama cuts longer prompts without a word, and {self.model} is not loaded, so {OLLAMA_DEFAULT_WINDOW:,} "
            f"tokens{most} are assumed: start Ollama with OLLAMA_CONTEXT_LENGTH=32768, say, and {SET_WINDOW}"
        )

    async def _json(self, method: str, url: str, body: object = None) -> object:
        """The answer, parsed. Raises _UnusableError."""
        import httpx2

        raw = bytearray()
        try:
            async with self.client.stream(method, url, json=body) as response:
                if response.status_code in {401, 403}:
                    raise _UnusableError(f"it refuses the key (HTTP {response.status_code})")
                if response.status_code != 200:
                    raise _UnusableError(f"it answers HTTP {response.status_code}")
                async for piece in response.aiter_bytes():
                    raw += piece
                    if len(raw) > MAX_ANSWER_BYTES:
                        raise _UnusableError(f"its answer is longer than {MAX_ANSWER_BYTES // 2**20} MiB")
        except httpx2.TimeoutException as error:
            raise _UnreachableError("it did not answer in time") from error
        except httpx2.TransportError as error:
            raise _UnreachableError(f"no connection ({scrub(str(error)) or type(error).__name__})") from error
        except httpx2.DecodingError as error:
            raise _UnusableError("its answer cannot be decoded") from error
        try:
            parsed: object = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _UnusableError("its answer is not JSON") from error
        return parsed
