"""The outermost layer of a model that runs here: through which kept cache each request reads its piece of a document.

It comes before the call store, since an answer from a compressed cache is not the one from the whole text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, Request


class ThroughCaches:
    """Asks `inner`, for each request, what `through` makes of it, and remembers which recipes these were."""

    def __init__(self, inner: ChatModel, through: Callable[[Request], Awaitable[Request]]) -> None:
        self._inner = inner
        self._through = through
        self.recipes: dict[str, int] = {}
        """Requests for each recipe that a piece was read by."""

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises what the model below raises."""
        request = await self._through(request)
        completion = await self._inner.complete(request)
        if request.kv:
            self.recipes[request.kv] = self.recipes.get(request.kv, 0) + 1
        return completion
