"""What one attempt has cost: the server's figures where they can be right, else counted here."""

from __future__ import annotations

import logging
from typing import Final

from lcdoc.agents.models.model import ChatModel, Request, TokenUsage
from lcdoc.agents.models.streaming import Answer
from lcdoc.agents.models.usage_figures import believable_usage
from lcdoc.agents.models.worst_case import beside_the_messages, longest_answer, prompt_tokens

_log = logging.getLogger(__name__)

_CLIPPED_BYTES_PER_TOKEN: Final = 10
"""No tokenizer makes so few tokens of a document: the server has not taken in all of it."""


class CallUsage:
    """Says what attempts at `model` have cost, and warns once of a server that cuts prompts off."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self._warned_of_clipping = False

    def of(self, request: Request, answer: Answer) -> TokenUsage:
        """Usage of `answer`, whole or not. What is counted here is at most what was held back for the answer."""
        prompt_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        prompt_bytes += len(beside_the_messages(self._model.spec, request).encode("utf-8", "replace"))
        max_tokens = longest_answer(self._model.spec, request)
        taken, given = believable_usage(
            answer.usage, prompt_bytes=prompt_bytes, max_tokens=max_tokens, answer_bytes=answer.size
        )
        if taken is not None and prompt_bytes > _CLIPPED_BYTES_PER_TOKEN * max(1_000, taken.tokens_in):
            self._warn_of_clipping(prompt_bytes, taken.tokens_in)
        if taken is None:
            taken = TokenUsage(tokens_in=prompt_tokens(self._model, request), estimated=True)
        if given is None:
            # An estimate errs high, and the server was told where to stop.
            counted = self._model.count_tokens(answer.text) + self._model.count_tokens(answer.reasoning)
            given = TokenUsage(tokens_out=min(counted, max_tokens), estimated=True)
        return taken + given

    def _warn_of_clipping(self, prompt_bytes: int, tokens_in: int) -> None:
        if not self._warned_of_clipping:
            self._warned_of_clipping = True
            _log.warning(
                "model %s: of a prompt of %d bytes the server took in %d tokens; it may cut long prompts off unasked, "
                "as Ollama does beyond its num_ctx: give it the context window that is assumed here",
                self._model.spec.name,
                prompt_bytes,
                tokens_in,
            )
