"""Sides that notes take: which of them answer the question differently, as far as code can tell.

Figures, dates, names, and yes or no are compared; whether a difference is a contradiction is for a reader to judge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from lcdoc.agents.answer_types import MONTH
from lcdoc.agents.candidates import is_row
from lcdoc.agents.evidence import FIGURES, NAMES
from lcdoc.agents.notes import Claim, Note
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import Citation
from lcdoc.agents.stems import QUESTION_FILLERS, STOP_WORDS, stem, stems_of, tokens_of

CONFIDENT = 3.0
"""The least confidence of a note that takes a side."""
_ABOUT_SHARE = 0.5
"""Of the question's words, what a note has to have with its quotes to be about what is asked."""
_EXTRACTED_SHARE = 0.75
"""The same for a claim that is only a quote."""
_SHORT_WORDS = 14
"""The longest claim of which every name is taken for the answer."""
_ALIKE = 0.5
"""From which two sentences say the same but for their figures, as the share of common words."""
_SENTENCE_CHARACTERS = 160

_FIGURE = re.compile(r"\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?=\D|$)(?![.,]?\d)|\d+(?:[.,]\d+)*")
_COUNTED_CHARACTERS = 60
"""After a figure, in which what it counts stands."""
_REFERENCE = re.compile(
    r"(?:\b(?:sections?|sec\.|chapters?|pages?|pp?\.|tables?|figures?|fig\.|notes?|appendix|annex|paragraphs?|articles?"
    r"|see|nos?\.|abschnitt|kapitel|seite|tabelle)\s+|§+\s*|\[\^?)\d[\d.,–-]*(?:\s*(?:and|to|,)\s*\d[\d.]*)*\]?",
    re.IGNORECASE,
)
"""Where something else stands: no figure of anything."""
_DATE = re.compile(
    rf"\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}\b(?:,?\s+\d{{4}})?"
    rf"|\b{MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?\b|\b{MONTH}\s+\d{{4}}\b",
    re.IGNORECASE,
)
_TIME = re.compile(r"\b\d{1,2}[:.]\d\d\b|\b\d{1,2}\s?[ap]\.?m\b", re.IGNORECASE)
_YEAR = re.compile(r"1[0-9]\d\d|20\d\d")
_NAME = re.compile(r"\b[A-Z][\w'’-]+")
_UNITS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# "One" is a pronoun as often as a number.
_NUMBER_WORDS = {"zero": "0", **{word: str(number) for number, word in enumerate(_UNITS, 2)}}
_MONTHS = frozenset(
    (
        *("january", "february", "march", "april", "may", "june", "july", "august"),
        *("september", "october", "november", "december"),
    )
)
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|cannot|nicht|kein\w*|nie|pas|jamais|aucune?)\b|n['’]t\b", re.I)
_YES_OR_NO = re.compile(
    r"^(?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|will|would|should)\b", re.IGNORECASE
)
_FILLERS = frozenset(map(stem, QUESTION_FILLERS))
_YES, _NO = frozenset({"yes"}), frozenset({"no"})
_YES_NO = _YES | _NO


_Group = tuple[frozenset[str], list[tuple[str, Note]]]
"""What is said, and the names and notes of those who say it."""


class Side(BaseModel):
    """What some notes say, by the surest of them."""

    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...]
    """Of the notes, the surest first."""
    claim: str
    citations: tuple[Citation, ...]
    confidence: float
    values: frozenset[str]
    """What differs from the other sides: figures, names, or yes and no."""

    @property
    def pages(self) -> tuple[int, ...]:
        return tuple(sorted({page for citation in self.citations for page in citation.pages}))

    def as_claim(self) -> Claim:
        return Claim(text=self.claim, citations=self.citations, confidence=self.confidence)


def sides_of(question: str, notes: Sequence[tuple[str, Note]]) -> tuple[Side, ...]:
    """The sides that named notes take, the surest first; empty where no two exclude each other.

    A note whose own quotes exclude each other is on several sides, by one quote on each. Only confident notes with
    checked quotes take a side, and only where the question asks for one figure, date or name, or for yes or no, or
    where sentences say the same with other figures. This is code's guess at a conflict: whether it is one is for
    `settle`.
    """
    asked = Question.of(question)
    sure = sorted(
        ((name, note) for name, note in notes if note.found and note.quotes and note.confidence >= CONFIDENT),
        key=lambda named: (-named[1].confidence, named[0]),
    )
    groups = _groups(asked, [voice for name, note in sure for voice in _voices(asked, name, note)])
    if len(groups) < 2:
        return ()
    return tuple(_side(values, members) for values, members in groups)


def _groups(asked: Question, voices: Sequence[tuple[str, Note]]) -> list[_Group]:
    """What is said, each time by whoever says nothing that excludes the first of them."""
    groups: list[_Group] = []
    for name, note in voices:
        values = _values(asked, note)
        if not values or not _is_about(asked, note):
            continue
        same = next((group for group in groups if not _exclude(asked, group, (values, [(name, note)]))), None)
        if same is None:
            groups.append((values, [(name, note)]))
        else:
            same[1].append((name, note))
    return groups


def _voices(asked: Question, name: str, note: Note) -> list[tuple[str, Note]]:
    """A note as what each of its quotes says, where these exclude each other or none shows its claim; else as it is.

    A quote says its own claim, or itself where that is the conclusion from several. Where yes or no is asked, a quote
    does not answer: "not" in it may deny anything.
    """
    if not _YES_OR_NO.match(asked.text):
        values = _values(asked, note)
        misread = bool(values) and not any(_shows(citation, values) for citation in note.citations)
        claims = Counter([note.claim, *(quote.claim for quote in note.quotes)])
        voices = [
            (
                name,
                note.model_copy(
                    update={
                        "quotes": (quote,),
                        "claim": quote.claim if quote.claim and claims[quote.claim] == 1 else quote.citation.quote,
                        "confidence": quote.confidence or note.confidence,
                    }
                ),
            )
            for quote in note.quotes
        ]
        if misread or len(_groups(asked, voices)) > 1:
            return voices
    return [(name, note)]


def _side(values: frozenset[str], members: Sequence[tuple[str, Note]]) -> Side:
    _, surest = members[0]
    showing = [quote.citation for quote in surest.quotes if _shows(quote.citation, values)]
    return Side(
        names=tuple(dict.fromkeys(name for name, _ in members)),
        claim=_claim(surest),
        citations=tuple(showing) or surest.citations[:1],
        confidence=surest.confidence,
        values=values,
    )


def _claim(note: Note) -> str:
    return note.claim or note.quotes[0].citation.quote


def _is_about(asked: Question, note: Note) -> bool:
    """Whether a note has the question's names and most of its words."""
    claim, quotes = _claim(note), [citation.quote for citation in note.citations]
    titles = [title for citation in note.citations for title in citation.headings]
    said = set(stems_of("\n".join([claim, *quotes, *titles])))
    wanted = [s for s in asked.stems if s not in _FILLERS] or list(asked.stems)
    if not asked.names <= said:
        return False
    if any(claim in quote for quote in quotes):
        # Nobody concluded it: the sentence has to say by itself what it is about.
        return len(set(stems_of(claim)).intersection(wanted)) >= _EXTRACTED_SHARE * len(wanted)
    return len(said.intersection(wanted)) >= _ABOUT_SHARE * len(wanted)


def _values(asked: Question, note: Note) -> frozenset[str]:
    """What a note answers, bare: figures, names, yes or no; empty where its claim has none."""
    claim = _claim(note)
    if _YES_OR_NO.match(asked.text):
        return _NO if _NEGATION.search(claim) else _YES
    if is_row(claim) or "|" in claim:
        return frozenset()
    read = _names if asked.kind in NAMES else _dates if asked.kind == "date" else _figures
    return frozenset(read(asked, claim))


def _names(asked: Question, claim: str) -> set[str]:
    """Stems of the names in a short claim, without the question's."""
    words = claim.split()
    if len(words) > _SHORT_WORDS:
        return set()
    # The first word of a sentence has a capital anyway; a name of two words has another one.
    begins = words[0] if len(words) > 3 and words[0].casefold() in STOP_WORDS else ""
    return {s for name in _NAME.findall(claim) if name != begins for s in stems_of(name)} - set(asked.stems)


def _dates(asked: Question, claim: str) -> set[str]:
    """Days, months, years and times of the clock, without the question's."""
    said = " ".join(match[0] for match in (*_DATE.finditer(claim), *_TIME.finditer(claim)))
    years = {figure for figure in figures_in(claim) if _YEAR.fullmatch(figure)}
    return ((figures_in(said) | years) - figures_in(asked.text)) | ((_MONTHS & set(tokens_of(said))) - asked.known)


def _figures(asked: Question, claim: str) -> set[str]:
    """Figures without the question's; where it asks for an amount, not dates and years beside it."""
    if asked.kind not in FIGURES:
        return figures_in(claim) - figures_in(asked.text)
    bare = _DATE.sub(" ", claim)
    figures = figures_in(bare) - figures_in(asked.text)
    if asked.counted and len(figures) > 1:
        return _counting(bare, asked.counted) & figures
    return {figure for figure in figures if not _YEAR.fullmatch(figure)} or figures


def figures_in(text: str) -> set[str]:
    """The figures of `text`, numbers in words included: `07:02` is `7.02`, `1.50` is `1.5`, `1,250` is `1250`."""
    text = _REFERENCE.sub(" ", text)
    figures = {_plain(match) for match in _FIGURE.findall(text)}
    return figures | {_NUMBER_WORDS[token] for token in tokens_of(text) if token in _NUMBER_WORDS}


def _counting(text: str, counted: frozenset[str]) -> set[str]:
    """The figures that stand right before what is counted."""
    near: set[str] = set()
    for match in re.finditer(rf"{_FIGURE.pattern}|[^\W\d_]+", text):
        figure = figures_in(match[0])
        if figure and not counted.isdisjoint(stems_of(text[match.end() :][:_COUNTED_CHARACTERS])[:2]):
            near |= figure
    return near


def _plain(figure: str) -> str:
    bare = figure.replace(",", "").replace(":", ".").lstrip("0")
    return (bare.rstrip("0").rstrip(".") if "." in bare else bare) or "0"


def _shows(citation: Citation, values: frozenset[str]) -> bool:
    """Whether a quote has some of the figures or names; for yes and no every quote counts."""
    text = citation.quote
    return values <= _YES_NO or not values.isdisjoint({*figures_in(text), *stems_of(text), *tokens_of(text)})


def _exclude(asked: Question, group: _Group, other: _Group) -> bool:
    """Whether two groups answer differently, as far as code can tell."""
    (values, members), (others, other_members) = group, other
    if asked.kind in NAMES:
        return values.isdisjoint(others)
    if values <= others or others <= values:
        return False
    if asked.kind in FIGURES or _YES_OR_NO.match(asked.text):
        return True
    return _alike(_claim(members[0][1]), _claim(other_members[0][1]))


def _alike(one: str, other: str) -> bool:
    """Whether two short claims say the same but for their figures."""
    if max(len(one), len(other)) > _SENTENCE_CHARACTERS:
        return False
    words, others = (
        {s for s in stems_of(text) if not s[0].isdigit()} - set(map(stem, _NUMBER_WORDS)) for text in (one, other)
    )
    return len(words & others) >= _ALIKE * max(1, len(words | others))


def without(note: Note, values: frozenset[str]) -> Note:
    """What is left of a note when what it says of `values` fell: its other quotes, or nothing."""
    quotes = tuple(quote for quote in note.quotes if not _shows(quote.citation, values))
    kept = tuple(quote.model_copy(update={"claim": ""}) for quote in quotes)
    return note.model_copy(update={"found": bool(kept), "quotes": kept, "claim": ""})
