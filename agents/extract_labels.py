"""Lines that name a field and give its value: `Rent: EUR 1,250`, `Tenant<tab>Mara Lind`, `| Start | 1 May 2021 |`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import STOP_WORDS, stem, tokens_of
from lcdoc.documents import Span

MOST_LINES = 20_000
"""Looked at in one passage."""
_LEAST_MATCH = 0.75
_LONGEST_LABEL = 80
_LONGEST_VALUE = 300
_LINE = re.compile(
    r"^[ \t>|*•#-]*(?P<label>[^\n:|\t]{2,80}?)[ \t*]*(?::[ \t*]+|[ \t]*\|[ \t]*|\t+)(?P<value>[^\n|\t]*[^\s|])[ \t|]*$",
    re.MULTILINE,
)
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A line whose label is like the one looked for; `match` tells how like, to 1."""

    span: Span
    value: str
    match: float


def labelled(passage: Passage, label: str) -> Iterator[Labelled]:
    """The lines of a passage that are labelled like `label`, in order."""
    wanted = _words(label)
    if not wanted:
        return
    for number, found in enumerate(_LINE.finditer(passage.text)):
        if number >= MOST_LINES:
            return
        value = found["value"].strip(" *")
        if not value or len(value) > _LONGEST_VALUE:
            continue
        match = _likeness(wanted, _words(_ASIDE.sub("", found["label"])))
        if match >= _LEAST_MATCH:
            start = passage.span.start
            yield Labelled(Span(start + found.start("label"), start + found.end("value")), value, match)


def likeness_of(label: str, given: str) -> float:
    """How like two labels are, to 1; 0 where less than labels have to be."""
    match = _likeness(_words(label), _words(_ASIDE.sub("", given)))
    return match if match >= _LEAST_MATCH else 0.0


def _words(label: str) -> frozenset[str]:
    return frozenset(stem(token) for token in tokens_of(label[:_LONGEST_LABEL]) if token not in STOP_WORDS)


def _likeness(wanted: frozenset[str], given: frozenset[str]) -> float:
    """The share of words that two labels have in common, of the longer one."""
    return len(wanted & given) / max(len(wanted), len(given), 1)
