"""Which sentences name a thing of the kind that a question asks to list: told by form, without a language model.

"The Long Anvil is a chain ferry" names a ferry; "The ferries are far older than the lights" speaks of them. A name is a
word with a capital that is no beginning of a sentence, or that is also written so within one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcdoc.agents.candidates import Candidate
from lcdoc.agents.evidence import FIGURES
from lcdoc.agents.questions import Question
from lcdoc.agents.stems import QUESTION_FILLERS, STOP_WORDS, stem, stems_of

_WORDS_SHARE = 0.6
"""Of the question's words, what a sentence must have."""
_NEAR_WORDS = 3
"""Between a name and the word for its kind, at most."""
_LEAST_SAID = 3
"""Words beyond the question's that a sentence without a name must have to say something of its own."""
_UNNAMED = 0.5
"""What a sentence without a name is worth beside one with a name."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]")
_WITHIN = re.compile(r"(?<=[a-z0-9,;)] )[A-Z][\w'’-]+")
_LEADER = re.compile(r"(?:\.\s*){4,}\d*\s*$")
"""Dots up to a page number: a line of a table of contents."""
_FILLERS = frozenset(map(stem, QUESTION_FILLERS))
_APPOSITION = frozenset({"a", "an", "the", "our", "her", "his", "its", "their"})


def is_heading(candidate: Candidate) -> bool:
    """Whether a candidate is a title, or a line of a table of contents: its figures count nothing."""
    return candidate.is_fragment or _LEADER.search(candidate.text) is not None


@dataclass(frozen=True)
class Naming:
    """What a question asks to list, and the names known from the text around."""

    wanted: tuple[str, ...]
    """Stems of the words for the things."""
    known: frozenset[str]
    """Stems of all of the question's words."""
    names: frozenset[str]
    """Words that have a capital within sentences."""
    figures: bool
    """Whether figures or dates are such things."""

    @classmethod
    def of(cls, asked: Question, texts: Sequence[str]) -> Naming:
        wanted = tuple(s for s in asked.stems if s not in _FILLERS) or asked.stems
        names = frozenset(name for text in texts for name in _WITHIN.findall(" ".join(text.split())))
        return cls(wanted, frozenset(asked.stems), names, asked.kind in FIGURES)

    def share(self, candidate: Candidate) -> float | None:
        """How well a sentence names such a thing, from 0 to 1; None where it does not.

        The question's word for the kind has to stand in it, with a name close by. Where the question says more than the
        kind, a sentence with its words need not have a name.
        """
        if candidate.text.endswith("?") or is_heading(candidate):
            return None
        share = len({*candidate.stems, *candidate.header_stems}.intersection(self.wanted)) / len(self.wanted)
        if share < _WORDS_SHARE:
            return None
        if self._has_name(candidate.text, row=candidate.is_row):
            return share
        says_more = len(set(candidate.stems) - self.known) >= _LEAST_SAID
        if self.figures and any(s[0].isdigit() and s not in self.known for s in candidate.stems):
            return share
        return _UNNAMED * share if len(self.wanted) > 1 and says_more else None

    def _has_name(self, text: str, *, row: bool) -> bool:
        """Whether a name stands close to the word for a kind, in the same part of the sentence or in apposition."""
        words = _WORD.findall(text)
        kinds = [index for index, word in enumerate(words) if not self.known.isdisjoint(stems_of(word))]
        for index, word in enumerate(words):
            if not self._is_name(word, first=index == 0):
                continue
            if row:
                return True
            for kind in kinds:
                between = words[min(index, kind) + 1 : max(index, kind)]
                if between[:1] == [","] and between[1:2] and between[1].casefold() in _APPOSITION:
                    between = between[1:]
                if len(between) <= _NEAR_WORDS and all(one[0].isalnum() for one in between):
                    return True
        return False

    def _is_name(self, word: str, *, first: bool) -> bool:
        if not word[0].isupper() or word.casefold() in STOP_WORDS or not self.known.isdisjoint(stems_of(word)):
            return False
        return word in self.names or not first
