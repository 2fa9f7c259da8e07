"""What the skills of a reader that asks a language model share: the model, the blocks of data, numbers looked up."""

from __future__ import annotations

from collections.abc import Sequence

from lcdoc.agents.models.model import ChatModel, Profile
from lcdoc.agents.prompts.asker import Asker
from lcdoc.agents.prompts.blocks import Blocks
from lcdoc.agents.prompts.fence import Fence

UNQUOTED_CONFIDENCE = 1.0
"""The most that is given to a claim for which no quote stands in the source."""


class PromptedSkill:
    """A family of skills that ask one model. Skills raise ModelError."""

    def __init__(self, model: ChatModel, *, secret: bytes, profile: Profile | None = None) -> None:
        """`secret` keys the fences: the library's, 16 bytes or more. `profile` is the model's own by default."""
        self._blocks = Blocks(Fence(secret))
        self._asker = Asker(model, profile or model.spec.profile, self._blocks)

    @property
    def asker(self) -> Asker:
        """What the skills ask through; for skills that are files of their own."""
        return self._asker


def indices_of(numbers: Sequence[int], count: int) -> list[int]:
    """The numbers (from 1) that are any of `count`, as indices, each once."""
    return [number - 1 for number in dict.fromkeys(numbers) if 1 <= number <= count]
