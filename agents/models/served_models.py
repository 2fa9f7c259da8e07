"""The names of the models that a server has, for the message that says which it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.connections import bounded
from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.error_translation import Refusal
from lcdoc.agents.models.errors import ModelError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 4_000_000


class ServedModels:
    """A server's list of models. `client` gives the connections, `headers` what each request carries."""

    def __init__(self, model: str, client: Callable[[], AsyncOpenAI], headers: Callable[[], dict[str, Any]]) -> None:
        self._model = model
        self._client = client
        self._headers = headers
        self._names: tuple[str, ...] | None = None
        self._lock = asyncio.Lock()

    async def names(self) -> tuple[str, ...]:
        """Names of the models that the server has, asked for once; empty where it does not say."""
        async with self._lock:
            if self._names is None:
                self._names = ()
                with contextlib.suppress(TimeoutError, Refusal, ModelError):
                    async with asyncio.timeout(_TIMEOUT_S):
                        self._names = await self._ask()
        return self._names

    async def _ask(self) -> tuple[str, ...]:
        import httpx2
        import openai

        try:
            response: Any = await self._client().get(
                "/models",
                cast_to=httpx2.Response,
                options={"headers": self._headers()},
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            try:
                data = json.loads(await bounded(response, _MAX_BYTES))
            finally:
                await response.aclose()
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            _log.debug("model %s: the server lists no models (%s)", self._model, type(error).__name__)
            return ()
        entries = data.get("data") if isinstance(data, dict) else None
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        return tuple(clean(name, 80) for name in names if isinstance(name, str) and name)
