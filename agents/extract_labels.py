"""Lines that name a field and give its value, as forms and fact sheets have them.

Rent: EUR 1,250        Tenant<tab>Mara Lind        | Start | 1 May 2021 |      Commission File Number 1-15839

Delaware 95-4803544
(State of incorporation) (Employer Identification No.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lcdoc.agents.answer_types import MONTH
from lcdoc.agents.extract_fields import Field
from lcdoc.agents.extract_text_kinds import codes_in, text_kind
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import STOP_WORDS, stem, tokens_of
from lcdoc.documents import Span

MOST_LINES = 20_000
"""Looked at in one passage."""
_LEAST_MATCH = 0.75
_PREFIX_MATCH = 0.9
"""Of a line that begins with the label and goes on without a mark."""
_CAPTION_MATCH = 0.8
"""Of a value above its label."""
_LONGEST_LABEL = 80
_LONGEST_VALUE = 300
_LONGEST_REST = 60
"""Of what follows a label without a mark: more is a sentence that begins with the field's name."""
_LONGEST_CODE = 40
"""Of the longer ones, only the code that they begin with is the value."""
_LINE = re.compile(
    r"^[ \t>|*•#-]*(?P<label>[^\n:|\t]{2,80}?)[ \t*]*(?::[ \t*]+|[ \t]*\|[ \t]*|\t+)(?P<value>[^\n|\t]*[^\s|])[ \t|]*$"
)
_CAPTION = re.compile(r"\(([^()\n]{3,80})\)")
_CAPTIONS = re.compile(r"^\s*(?:\([^()\n]{3,80}\)\s*)+$")
_VALUE = rf"(?=(?:[$€£¥]|[A-Z]{{2,3}}[$]?)?\s?[(+]?\d|[A-Z]{{2}}\d|{MONTH}\b)"
"""How a number, a date or a code begins: what else follows a label without a mark belongs to the label."""
_NUMBER = re.compile(r"\b[Nn]o\.")
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A value and the place it stands in with its label; `match` is how like that is to the one looked for, to 1."""

    span: Span
    value: str
    match: float


def labelled(passage: Passage, field: Field) -> Iterator[Labelled]:
    """The values in a passage that stand at a label like the field's, in order."""
    wanted = _words(field.label)
    if not wanted:
        return
    is_code = field.kind == "text" and text_kind(field) == "code"
    beginning = re.compile(
        r"[\s>|*•#-]*"
        + r"\W+".join(map(re.escape, re.findall(r"\w+", field.label)))
        + rf"\b\.?\s+(?P<value>{_VALUE}.*?)\s*$",
        re.IGNORECASE,
    )
    lines = list(_lines(passage))
    for span, line in lines:
        marked = _marked(wanted, line, within=is_code)
        if marked is None and (field.kind != "text" or is_code):
            found = beginning.fullmatch(line)
            if found and (is_code or len(found["value"]) <= _LONGEST_REST):
                marked = found["value"], _PREFIX_MATCH
        if marked is not None and is_code and len(marked[0]) > _LONGEST_CODE:
            code = next(((start, end) for start, end in codes_in(marked[0]) if start == 0), (0, 0))
            marked = marked[0][: code[1]], marked[1]
        if marked is not None and marked[0]:
            yield Labelled(span, *marked)
    if field.kind == "text":
        for (above, value), (below, captions) in pairwise(lines):
            if _CAPTIONS.match(captions) and not _CAPTIONS.match(value):
                said = _above(field, wanted, value, _CAPTION.findall(captions))
                if said:
                    yield Labelled(Span(above.start, below.end), said, _CAPTION_MATCH)


def likeness_of(label: str, given: str) -> float:
    """How like two labels are, to 1; 0 where they are less alike than labels have to be."""
    match = _likeness(_words(label), _words(_ASIDE.sub("", given)))
    return match if match >= _LEAST_MATCH else 0.0


def _lines(passage: Passage) -> Iterator[tuple[Span, str]]:
    """Lines with something in them."""
    at = passage.span.start
    for number, line in enumerate(passage.text.split("\n")):
        if number >= MOST_LINES:
            return
        if line.strip():
            start = at + len(line) - len(line.lstrip())
            yield Span(start, at + len(line.rstrip())), line
        at += len(line) + 1


def _marked(wanted: frozenset[str], line: str, *, within: bool) -> tuple[str, float] | None:
    """The value behind a colon, a tab or a bar, and how well the label before it fits.

    `within`: a label that says more is one, too ("telephone number, including area code").
    """
    found = _LINE.match(line)
    if found is None:
        return None
    value = found["value"].strip(" *")
    given = _words(_ASIDE.sub("", found["label"]))
    match = _LEAST_MATCH if within and len(wanted) > 1 and wanted <= given else _likeness(wanted, given)
    return (value, match) if value and len(value) <= _LONGEST_VALUE and match >= _LEAST_MATCH else None


def _above(field: Field, wanted: frozenset[str], line: str, captions: Sequence[str]) -> str:
    """What of a line belongs to one of the captions below it; empty where that cannot be told."""
    named = [caption for caption in captions if len(wanted) > 1 and wanted <= _words(caption)]
    codes = [line[start:end] for start, end in codes_in(line)]
    if not named or len(line) > _LONGEST_VALUE:
        return ""
    if text_kind(field) == "code":
        return codes[0].strip() if len(codes) == 1 else ""
    if codes and len(captions) == 1:
        # "Commission File Number 001-02217", where the line that was meant is a picture.
        return ""
    rest = line
    for code in codes:
        rest = rest.replace(code, " ")
    return " ".join(rest.split()).strip("_*- ")


def _words(label: str) -> frozenset[str]:
    tokens = tokens_of(_NUMBER.sub("number ", label[:_LONGEST_LABEL]))
    return frozenset(stem(token) for token in tokens if token not in STOP_WORDS)


def _likeness(wanted: frozenset[str], given: frozenset[str]) -> float:
    """The share of words that two labels have in common, of the longer one."""
    return len(wanted & given) / max(len(wanted), len(given), 1)
