"""A question, analysed: its stems, names and numbers, and the kind of answer it wants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lcdoc.agents.answer_types import AnswerType, answer_type
from lcdoc.agents.stems import QUESTION_FILLERS, STOP_WORDS, stem, stems_of, tokens_of

_FILLER_WEIGHT = 0.35
_ASIDE_WEIGHT = 0.2
_CORE_STEMS = 3
_COUNTED = re.compile(r"\bhow many (\w[\w-]*(?: \w[\w-]*)?)", re.IGNORECASE)
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s+[A-Z\"“(])|$)")
_FILLER_STEMS = frozenset(map(stem, QUESTION_FILLERS))
# The first word of a sentence is capitalised anyway.
_NAME = re.compile(r"(?<!^)(?<![.?!:]\s)\b[A-Z][\w'’-]+")
MAX_QUESTION_CHARACTERS = 2_000
"""What of a question is looked at: more is no question but a text, and would make every measure slow."""


@dataclass(frozen=True)
class Question:
    """A question as sentences are compared with it. `stems` are distinct, in order; `known` its folded words."""

    text: str
    core: str
    """The sentences that ask; the whole text where they say too little by themselves."""
    kind: AnswerType
    stems: tuple[str, ...]
    known: frozenset[str]
    names: frozenset[str]
    """Stems of its capitalised words: what a text about something else does not have."""
    numbers: frozenset[str]
    counted: frozenset[str] = frozenset()
    """Of a question "how many full-time employees ...": stems of the words right after "many"."""
    aside: frozenset[str] = frozenset()
    """Stems that only the sentences around the core have: definitions, instructions, circumstances."""

    @classmethod
    def of(cls, text: str) -> Question:
        """Any string is a question; one without words has no stems."""
        text = " ".join(text.split())[:MAX_QUESTION_CHARACTERS]
        core = _core(text)
        tokens = tokens_of(core)
        stems = _content(text)
        capitalised = [] if text.isupper() else _NAME.findall(core)
        return cls(
            text=text,
            core=core,
            kind=answer_type(core),
            stems=stems,
            known=frozenset(tokens),
            names=frozenset(s for name in capitalised for s in stems_of(name)),
            numbers=frozenset(token for token in tokens if token[0].isdigit()),
            counted=_counted(core),
            aside=frozenset(stems) - frozenset(_content(core)),
        )

    def weights(self, rarity: Mapping[str, float]) -> dict[str, float]:
        """What each stem weighs: its rarity, less for words that questions are merely put with, and for asides."""
        return {
            s: rarity[s] * (_FILLER_WEIGHT if s in _FILLER_STEMS else 1.0) * (_ASIDE_WEIGHT if s in self.aside else 1.0)
            for s in self.stems
        }


def _content(text: str) -> tuple[str, ...]:
    """Distinct stems in order, without stop words unless there is nothing else."""
    tokens = tokens_of(text)
    content = [token for token in tokens if token not in STOP_WORDS] or tokens
    return tuple(dict.fromkeys(map(stem, content)))


def _counted(core: str) -> frozenset[str]:
    match = _COUNTED.search(core)
    return frozenset(stems_of(match[1])) if match else frozenset()


def _core(text: str) -> str:
    """The sentences of `text` that end in a question mark, if they have enough words to be understood alone."""
    asking = [sentence for sentence in _SENTENCE.findall(text) if sentence.rstrip().endswith("?")]
    core = " ".join(asking).strip()
    return core if len(_content(core)) >= _CORE_STEMS else text
