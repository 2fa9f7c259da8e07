"""What a server says of itself: which models it has, and how long their window is there.

OpenAI's protocol tells names only, so each kind of server is read by its own fields: `max_model_len` (vLLM, SGLang),
`context_length` and `pricing` (OpenRouter), `/props` (llama.cpp), `/api/v0/models` (LM Studio), `/api/ps` and
`/api/show` (Ollama). Nothing in an answer is trusted, and a server that answers none of it is no error: the window is
then a cautious assumption, and the user is told.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from lcdoc.agents.models.addresses import is_loopback
from lcdoc.agents.models.errors import ConnectionFailedError, ModelNameError
from lcdoc.agents.models.model import Prices, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.secrets import Key, scrub

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER_BYTES = 16 * 2**20
MAX_MODELS = 10_000
REMEMBERED_S = 86_400.0
REMEMBERED_LOCAL_S = 60.0
"""A server on this machine is restarted with other options at will, and is quick to ask again."""
OLLAMA_DEFAULT_WINDOW = 4_096
"""What Ollama gives a model where nobody says otherwise and the graphics memory is below 24 GiB."""

_MIN_WINDOW, _MAX_WINDOW = 128, 100_000_000
_LISTED = 10
_SET_WINDOW = "set context_window for it in the configuration"

_log = logging.getLogger(__name__)


class Memos(Protocol):
    """Small texts kept between runs."""

    def get(self, key: str) -> str | None: ...
    def set(self, key: str, value: str, *, ttl_s: float) -> None: ...


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


async def discover(server: Server, key: Key | None, *, timeout_s: float = 5.0) -> Discovered:
    """Ask `server` for its models, and for the window of `server.model` (empty: of its only model).

    Never raises for what a server does or does not answer within `timeout_s`: `notes` say it.
    """
    import httpx2

    headers = dict(server.headers)
    if key is not None:
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


async def resolve_online(chosen: Chosen, *, memos: Memos | None = None, timeout_s: float = 5.0) -> Chosen:
    """`chosen` with what its server says filled in: the model where the name left it open, window, prices.

    Asks only where something is missing, and remembers the answer in `memos`. What the configuration says stands.
    Raises ModelNameError where the model is left open and the server lists several or none, ConnectionFailedError
    where it cannot be asked for it.
    """
    server = chosen.spec.server
    if server is None or (server.model and chosen.spec.context_window_known):
        return chosen
    found = _remembered(server, memos)
    if found is None:
        found = await discover(server, chosen.key, timeout_s=timeout_s)
        _remember(server, found, memos)
    if not server.model:
        chosen = chosen.at_model(_only_model(chosen, found))
    return _informed(chosen, found)


def _only_model(chosen: Chosen, found: Discovered) -> str:
    if len(found.models) == 1:
        return found.models[0]
    name = chosen.spec.name
    configured = chosen.origin is not None and chosen.origin.entry is not None
    example = found.models[0] if found.models else "NAME"
    how = f'set model = "{example}" in its entry' if configured else f"name it: {name.rstrip('#')}#{example}"
    if found.models:
        listed = ", ".join(found.models[:_LISTED]) + (" ..." if len(found.models) > _LISTED else "")
        raise ModelNameError(name, f"the server has {len(found.models)} models: {listed}", how)
    if found.notes:
        raise ConnectionFailedError(name, found.notes[0], f"start the server, or correct its address or key, or {how}")
    raise ModelNameError(name, "the server lists no models", how)


def _informed(chosen: Chosen, found: Discovered) -> Chosen:
    """The server's statements where the configuration made none, and what the user should know of them."""
    spec = chosen.spec
    notes: list[str] = []
    if not spec.context_window_known:
        notes += found.notes
        if found.context_window is None:
            window = f"{spec.context_window:,}"
            notes.append(f"the server does not say how long its window is; {window} tokens are assumed: {_SET_WINDOW}")
        else:
            # Beyond it the service charges more than the prices say.
            window_tokens = min(found.context_window, chosen.longest_prompt or found.context_window)
            spec = replace(spec, context_window=window_tokens, context_window_known=found.context_window_known)
    if spec.prices is None and found.prices is not None:
        spec = replace(spec, prices=found.prices)
        notes.append("prices are those that the server lists; another provider behind it may cost more")
    spec = replace(spec, max_output_tokens=spec.max_output_tokens or found.max_output_tokens)
    for note in notes:
        _log.info("%s: %s", spec.name, note)
    return replace(chosen, spec=spec, notes=tuple(dict.fromkeys((*chosen.notes, *notes))))


# --- remembering -----------------------------------------------------------------------------------------------------


def _memo_key(server: Server) -> str:
    return f"server/1 {server.base_url} {server.model}"


def _remembered(server: Server, memos: Memos | None) -> Discovered | None:
    raw = memos.get(_memo_key(server)) if memos is not None else None
    if raw is None:
        return None
    try:
        kept = json.loads(raw)
        charged = kept["prices"]
        prices = Prices(charged["input"], charged["output"], charged["cached_input"]) if charged else None
        models = tuple(map(str, kept["models"]))
        return Discovered(models, _window(kept["window"]), prices, _window(kept["max_output"]), tuple(kept["notes"]))
    except (ValueError, KeyError, TypeError, IndexError):
        _log.warning("what was remembered of %s cannot be read; it is asked again", server.base_url)
        return None


def _remember(server: Server, found: Discovered, memos: Memos | None) -> None:
    # An assumption is none of the server's words: it may say more the next time.
    if memos is None or found.context_window is None or not found.context_window_known:
        return
    kept = {
        # Of many models, only that there are some matters.
        "models": found.models[:_LISTED],
        "window": found.context_window,
        "max_output": found.max_output_tokens,
        "prices": asdict(found.prices) if found.prices else None,
        "notes": found.notes,
    }
    ttl_s = REMEMBERED_LOCAL_S if is_loopback(server.base_url) else REMEMBERED_S
    memos.set(_memo_key(server), json.dumps(kept), ttl_s=ttl_s)


# --- asking ----------------------------------------------------------------------------------------------------------


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
        entries = [entry for entry in _list(answer, "data") if _name(entry)][:MAX_MODELS]
        self.models = tuple(dict.fromkeys(_name(entry) for entry in entries))
        if not self.model:
            return
        entry = next((entry for entry in entries if _same(_name(entry), self.model)), {})
        if not entry and self.models:
            listed = ", ".join(self.models[:_LISTED]) + (" ..." if len(self.models) > _LISTED else "")
            self.notes.append(f"{self.server.base_url} does not list {self.model}; it lists {listed}")
        self._read_entry(entry)
        if self.window is None and urlsplit(self.server.base_url).hostname not in {"api.openai.com", "openrouter.ai"}:
            await self._by_own_endpoints(entry)

    def _read_entry(self, entry: Mapping[str, Any]) -> None:
        top = _dict(entry, "top_provider")
        windows = [entry.get("max_model_len"), entry.get("context_length"), entry.get("context_window")]
        windows += [top.get("context_length"), entry.get("loaded_context_length")]
        self.window = min(filter(None, map(_window, windows)), default=None)
        self.max_output_tokens = _window(top.get("max_completion_tokens"))
        self.prices = _prices(_dict(entry, "pricing"))

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
        trained = _window(_dict(entry, "meta").get("n_ctx_train"))
        if trained is not None:
            self.notes.append(f"{self.model} was trained for {trained:,} tokens, the server may give it fewer")

    async def _llama_cpp(self) -> None:
        props = await self._json("GET", f"{self.root}/props")
        # The window of one slot: what a request gets when the server answers several at once.
        self.window = _window(_dict(props, "default_generation_settings").get("n_ctx"))

    async def _lm_studio(self) -> None:
        listed = await self._json("GET", f"{self.root}/api/v0/models")
        for entry in _list(listed, "data"):
            if not _same(_name(entry), self.model):
                continue
            self.window = _window(entry.get("loaded_context_length"))
            if self.window is None and (most := _window(entry.get("max_context_length"))):
                self.notes.append(f"LM Studio has {self.model} not loaded; it can be given up to {most:,} tokens")

    async def _ollama(self) -> None:
        running = await self._json("GET", f"{self.root}/api/ps")
        if not isinstance(running, dict) or not isinstance(running.get("models"), list):
            raise _UnusableError("no list of running models")
        for entry in _list(running, "models"):
            if _same(str(entry.get("model") or entry.get("name") or ""), self.model):
                self.window = _window(entry.get("context_length"))
        if self.window is not None:
            return
        shown: object = {}
        try:
            shown = await self._json("POST", f"{self.root}/api/show", {"model": self.model})
        except _UnusableError as error:
            _log.debug("%s says nothing of %s: %s", self.root, self.model, error)
        parameters = shown.get("parameters") if isinstance(shown, dict) else None
        set_by_file = re.search(r"^num_ctx\s+(\d{1,9})\s*$", parameters if isinstance(parameters, str) else "", re.M)
        if set_by_file and (window := _window(int(set_by_file[1]))):
            self.window = window
            return
        # A longer prompt is cut at its beginning without an error, so a wrong guess would lose text in silence.
        self.window, self.window_known = OLLAMA_DEFAULT_WINDOW, False
        trained = next(
            (window for name, value in _dict(shown, "model_info").items() if name.endswith(".context_length")
             and (window := _window(value))),
            None,
        )  # fmt: skip
        most = f" of the {trained:,} it was trained for" if trained else ""
        self.notes.append(
            f"Ollama cuts longer prompts without a word, and {self.model} is not loaded, so {OLLAMA_DEFAULT_WINDOW:,} "
            f"tokens{most} are assumed: start Ollama with OLLAMA_CONTEXT_LENGTH=32768, say, and {_SET_WINDOW}"
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


# --- reading what is not trusted -------------------------------------------------------------------------------------


def _list(value: object, name: str) -> list[dict[str, Any]]:
    inner = value.get(name) if isinstance(value, dict) else None
    return [each for each in inner if isinstance(each, dict)] if isinstance(inner, list) else []


def _dict(value: object, name: str) -> dict[str, Any]:
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, dict) else {}


def _name(entry: Mapping[str, Any]) -> str:
    """A model's name, empty where it is none: it is shown, and becomes part of requests."""
    name = entry.get("id")
    return name if isinstance(name, str) and 0 < len(name) <= 300 and name.isprintable() else ""


def _same(listed: str, model: str) -> bool:
    """Whether two names mean one model; Ollama adds `:latest` to those without a tag."""
    return listed.removesuffix(":latest") == model.removesuffix(":latest")


def _window(value: object) -> int | None:
    """A number of tokens that can be one."""
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and _MIN_WINDOW <= value <= _MAX_WINDOW
        else None
    )


def _prices(pricing: Mapping[str, Any]) -> Prices | None:
    """US dollars per token, as OpenRouter writes them: decimal numbers in strings."""
    per_million: dict[str, float] = {}
    for name in ("prompt", "completion", "input_cache_read", "input_cache_write", "request"):
        text = pricing.get(name)
        if isinstance(text, str) and re.fullmatch(r"\d{1,3}(?:\.\d{1,20})?(?:[eE]-\d{1,2})?", text):
            per_million[name] = round(float(text) * 1e6, 9)
        elif text is not None:
            return None
    # A price of each request cannot be expressed, so the whole is not known.
    if "prompt" not in per_million or "completion" not in per_million or per_million.get("request"):
        return None
    fresh = max(per_million["prompt"], per_million.get("input_cache_write", 0.0))
    return Prices(fresh, per_million["completion"], per_million.get("input_cache_read"))
