"""A model that only listens: what would be sent is recorded, and nothing is."""

from __future__ import annotations

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, Request


class NotSentError(ModelError):
    """The request was recorded instead of being sent."""


class RehearsalModel:
    """Stands in for `model` where the question is what asking it would take. `complete` always raises NotSentError."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.requests: list[Request] = []

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Record `request`."""
        self.requests.append(request)
        raise NotSentError(self.spec.name, "nothing is sent in a rehearsal")
