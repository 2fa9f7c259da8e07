"""A question, analysed: its stems, names and numbers, and the kind of answer it wants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lcdoc.agents.answer_types import AnswerType, answer_type
from lcdoc.agents.stems import QUESTION_FILLERS, STOP_WORDS, stem, stems_of, tokens_of

_FILLER_WEIGHT = 0.35
_FILLER_STEMS = frozenset(map(stem, QUESTION_FILLERS))
# The first word of a sentence is capitalised anyway.
_NAME = re.compile(r"(?<!^)(?<![.?!:]\s)\b[A-Z][\w'’-]+")
MAX_QUESTION_CHARACTERS = 2_000
"""What of a question is looked at: more is no question but a text, and would make every measure slow."""


@dataclass(frozen=True)
class Question:
    """A question as sentences are compared with it. `stems` are distinct, in order; `known` its folded words."""

    text: str
    kind: AnswerType
    stems: tuple[str, ...]
    known: frozenset[str]
    names: frozenset[str]
    """Stems of its capitalised words: what a text about something else does not have."""
    numbers: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Question:
        """Any string is a question; one without words has no stems."""
        text = " ".join(text.split())[:MAX_QUESTION_CHARACTERS]
        tokens = tokens_of(text)
        content = [token for token in tokens if token not in STOP_WORDS] or tokens
        capitalised = [] if text.isupper() else _NAME.findall(text)
        return cls(
            text=text,
            kind=answer_type(text),
            stems=tuple(dict.fromkeys(map(stem, content))),
            known=frozenset(tokens),
            names=frozenset(s for name in capitalised for s in stems_of(name)),
            numbers=frozenset(token for token in tokens if token[0].isdigit()),
        )

    def weights(self, rarity: Mapping[str, float]) -> dict[str, float]:
        """What each stem weighs: its rarity, less for words that questions are merely put with (`mention`, `name`)."""
        return {s: rarity[s] * (_FILLER_WEIGHT if s in _FILLER_STEMS else 1.0) for s in self.stems}
