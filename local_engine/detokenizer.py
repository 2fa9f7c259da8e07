"""The text of an answer while its tokens arrive."""

from __future__ import annotations

from collections.abc import Sequence

from lcdoc.local_engine.decoding import Step
from lcdoc.local_engine.tokenizer import Tokenizer


class Detokenizer:
    """Turns one stream of tokens into text that stays as it is once it was given out.

    All it gives out, joined, is `tokenizer.decode(all ids)`. A push costs as much as its token is long, however much
    text there is already. A character whose bytes are spread over tokens is given out with its last one.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_specials: bool = True) -> None:
        self._tokenizer, self._skip_specials = tokenizer, skip_specials
        self._steps = tokenizer.decoder.steps()

    def push(self, token: int) -> str:
        """The text that a token makes certain: mostly its own, sometimes none, sometimes that of earlier ones too."""
        text = self._tokenizer.backend.id_to_token(token)
        if text is None or (self._skip_specials and self._tokenizer.is_special(token)):
            return ""
        return "".join(_through(self._steps, [text]))

    def flush(self) -> str:
        """The rest, when no more tokens come: half a character shows as U+FFFD. The stream is over with it."""
        rest: list[str] = []
        for i, step in enumerate(self._steps):
            rest += _through(self._steps[i + 1 :], step.flush())
        return "".join(rest)


def _through(steps: Sequence[Step], tokens: Sequence[str]) -> list[str]:
    """Tokens, taken through steps one after the other."""
    made = list(tokens)
    for step in steps:
        made = [each for token in made for each in step.push(token)]
    return made
