"""Extraction without a language model: typed phrases near a field's words, each as likely as such phrases proved to be.

Two ways lead to a value. A line that begins with the field's name and goes on with a value of its kind (`Rent: 1,250`)
says it outright. Else the sentences and table rows that are most likely about the field are looked through for phrases
of its kind, and the one in the likeliest place is taken. What it is worth is weighed (`extract_weights`); below a
threshold nothing is given, since a wrong value is worse than none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lcdoc.agents import extract_weights
from lcdoc.agents.answer_offers import offer
from lcdoc.agents.answer_types import AnswerType
from lcdoc.agents.candidates import Candidate
from lcdoc.agents.evidence_ranking import Evidence, Ranking, rank_evidence
from lcdoc.agents.extract_dates import dates_in, times_in
from lcdoc.agents.extract_fields import Field, Kind, Scalar
from lcdoc.agents.extract_findings import Extraction, Finding
from lcdoc.agents.extract_labels import labelled
from lcdoc.agents.extract_numbers import Figure, figures_in
from lcdoc.agents.extract_text_kinds import codes_in, text_kind
from lcdoc.agents.extract_values import Habits, coerced, emails_in, habits_of, is_denied, shown_by, uris_in
from lcdoc.agents.offline_reader import OfflineReader, quotable
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import check_quote
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import STOP_WORDS, stem, stems_of
from lcdoc.agents.table_cells import cell_of

MOST_SENTENCES = 8
"""Sentences looked through for one field."""
MOST_VALUES = 40
"""Values of a field that is wanted with all of them."""
_REACH = 40.0
"""Characters after which a word is a third as near."""
_LABEL_PROBABILITY = 0.9
"""Of a line that names the field and goes on with a value of its kind."""
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_TOKEN = re.compile(r"\w+(?:[.,]\d+)*")
_REFERENCE = re.compile(
    r"(?:sections?|sec\.|chapters?|pages?|pp?\.|tables?|figures?|fig\.|notes?|items?|appendix|exhibit|articles?|clauses?|§+"
    r"|nos?\.)\s*\(?$",
    re.IGNORECASE,
)

FEATURES = ("bias", "share", "confidence", "near", "covered", "alone", "fits", "cell", "row", "first")
_NEAR, _FITS, _ROW, _CELL, _ALONE = map(FEATURES.index, ("near", "fits", "row", "cell", "alone"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a sentence that may be the value, and what is measured of them (see `FEATURES`)."""

    evidence: Evidence
    start: int
    end: int
    said: str
    value: Scalar
    measures: tuple[float, ...]

    @property
    def probability(self) -> float:
        """That it is the value."""
        total = sum(w * v for w, v in zip(extract_weights.PHRASE, self.measures, strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))


def extracted(reader: OfflineReader, passages: Sequence[Passage], fields: Sequence[Field]) -> Extraction:
    """Values of the fields in `passages`, the likeliest for each. Raises what the embedder raises."""
    findings = [one for field in fields for one in _findings(reader, passages, field)]
    return Extraction(tuple(findings))


def _findings(reader: OfflineReader, passages: Sequence[Passage], field: Field) -> list[Finding]:
    found = list(from_labels(passages, field))
    if found and not field.many:
        return found
    asked = Question.of(field.question)
    ranking = rank_evidence(asked, passages, reader.embedder)
    phrases = [one for one in phrases_of(field, asked, passages, ranking) if may_be_given(field.kind, one.measures)]
    least = extract_weights.LEAST_OF_ADDRESS if field.kind in ("email", "uri") else extract_weights.LEAST
    if field.many:
        taken = [one for one in phrases if one.probability >= least]
        found += filter(None, (_finding(field, one, passages) for one in taken))
        return _distinct(found)[:MOST_VALUES]
    best = max(phrases, key=lambda one: one.probability, default=None)
    if best is None or best.probability < least:
        return []
    finding = _finding(field, best, passages)
    return [finding] if finding else []


def may_be_given(kind: Kind, measures: Sequence[float]) -> bool:
    """Whether a phrase with these measures may be a value at all.

    A text only if the field's words are beside it; of a table row the figure under the year that is named, or its only
    one, since in any other column stands something else; one of many in a sentence only if it is near.
    """
    if kind == "text":
        return measures[_NEAR] >= extract_weights.LEAST_NEAR_OF_TEXT and measures[_FITS] >= 1
    if measures[_ROW]:
        return measures[_CELL] > 0 or (measures[_CELL] < 0 and measures[_ALONE] == 1)
    return measures[_ALONE] >= extract_weights.LEAST_ALONE or measures[_NEAR] >= extract_weights.LEAST_NEAR


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    by_value: dict[object, Finding] = {}
    for one in findings:
        by_value.setdefault(one.value, one)
    return list(by_value.values())


def from_labels(passages: Sequence[Passage], field: Field) -> Iterator[Finding]:
    """Values of the lines that are labelled like the field, in order."""
    for passage in passages:
        habits = habits_of(passage.document)
        for line in labelled(passage, field):
            value = coerced(field, line.value, habits)
            if value is None:
                continue
            quote = line.span.of(passage.document.body)
            citation = check_quote(passage.document, quote, near=line.span)
            if citation is not None and shown_by(field, value, citation.quote, habits) != "no":
                confidence = round(5 * _LABEL_PROBABILITY * line.match, 2)
                yield Finding(field.path, value, (citation,), confidence)


def _finding(field: Field, phrase: Phrase, passages: Sequence[Passage]) -> Finding | None:
    candidate = phrase.evidence.candidate
    document = passages[candidate.passage].document
    text, near = quotable(document, candidate)
    citation = check_quote(document, text, near=near)
    if citation is None or shown_by(field, phrase.value, citation.quote, habits_of(document)) == "no":
        return None
    return Finding(field.path, phrase.value, (citation,), round(5 * phrase.probability, 2))


def phrases_of(field: Field, asked: Question, passages: Sequence[Passage], ranking: Ranking) -> list[Phrase]:
    """Phrases of the field's kind in the likeliest sentences, with what is measured of each."""
    found: list[Phrase] = []
    most = MOST_VALUES if field.many else MOST_SENTENCES
    for place, evidence in enumerate(ranking.evidence[:most]):
        candidate = evidence.candidate
        habits = habits_of(passages[candidate.passage].document)
        spans = list(_spans(field, asked, candidate, habits))
        cell = cell_of(candidate, asked) if candidate.is_row and field.kind in ("number", "integer") else None
        for start, end, fits in spans:
            said = candidate.raw[start:end]
            value = coerced(field, said, habits)
            if value is None:
                continue
            is_cell = cell is not None and (coerced(field, cell, habits) == value)
            near, covered = _nearness(asked, candidate, start, end)
            measures = (
                1.0,
                math.log(max(evidence.share, 1e-4)),
                _log_odds(ranking.confidence),
                near,
                covered,
                1 / len(spans),
                fits,
                float(is_cell) - (0.5 if cell is None else 0.0) * candidate.is_row,
                float(candidate.is_row),
                float(place == 0),
            )
            found.append(Phrase(evidence, start, end, said, value, measures))
    return found


def _spans(field: Field, asked: Question, candidate: Candidate, habits: Habits) -> Iterator[tuple[int, int, float]]:
    """Where phrases of the field's kind stand in a sentence, and how well each is of the kind that is asked for."""
    text = candidate.raw
    if field.enum:
        yield from _named(field, text)
    elif field.kind in ("number", "integer"):
        for figure in figures_in(text, decimal_comma=habits.decimal_comma):
            fits = _figure_fits(asked, text, figure)
            if fits is not None:
                yield figure.start, figure.end, fits
    elif field.kind == "date":
        yield from ((at.start, at.end, 1.0) for at in dates_in(text, day_first=habits.day_first))
    elif field.kind == "time":
        yield from ((start, end, 1.0) for start, end, _ in times_in(text))
    elif field.kind in ("email", "uri"):
        found = emails_in(text) if field.kind == "email" else uris_in(text)
        yield from ((start, end, 1.0) for start, end in found)
    elif field.kind == "text":
        kind = text_kind(field)
        if kind == "code":
            yield from ((start, end, 1.0) for start, end in codes_in(text))
        elif kind not in ("other", "definition", "reason", "manner"):
            yield from _typed(kind, asked, text)


def _named(field: Field, text: str) -> Iterator[tuple[int, int, float]]:
    """Where a sentence names values of an enum, and does not deny them."""
    for one in field.enum:
        places = re.finditer(rf"(?<!\w){re.escape(str(one))}(?!\w)", text, re.IGNORECASE)
        start, end = next((at.span() for at in places if not is_denied(text, at.start())), (0, 0))
        if end:
            yield start, end, 1.0


def _typed(kind: AnswerType, asked: Question, text: str) -> Iterator[tuple[int, int, float]]:
    """Names, dates, amounts in a sentence, whichever the question asks for."""
    at = 0
    for _ in range(MOST_SENTENCES):
        offered = offer(kind, text[at:], asked.known)
        if offered.at is None or offered.fits <= 0:
            return
        start, end = at + offered.at[0], at + offered.at[1]
        yield start, end, offered.fits
        at = end


def _figure_fits(asked: Question, text: str, figure: Figure) -> float | None:
    """How well a number is of the kind asked for; None for what is a year, a reference or in the question itself."""
    said = text[figure.start : figure.end]
    is_year = _YEAR.fullmatch(said) is not None
    known = said.strip("()-%$ ").replace(",", "") in asked.known and not figure.money
    referred = _REFERENCE.search(text[max(0, figure.start - 20) : figure.start])
    dated = not is_year and any(at.start <= figure.start < at.end for at in dates_in(text))
    if known or referred or dated or is_year != (asked.kind == "date"):
        return None
    if asked.kind == "percent":
        return 1.0 if figure.percent else 0.3
    if asked.kind == "money":
        return 1.0 if figure.money else 0.2 if figure.percent else 0.6
    return 0.4 if figure.percent else 0.8


def _nearness(asked: Question, candidate: Candidate, start: int, end: int) -> tuple[float, float]:
    """How near the question's words stand to a phrase, and the share of them that the sentence has; both 0 to 1."""
    wanted = set(asked.stems)
    if not wanted:
        return 0.0, 0.0
    nearest: dict[str, int] = {}
    for match in _TOKEN.finditer(candidate.raw):
        word = match[0].casefold()
        if word in STOP_WORDS or (found := stem(word)) not in wanted:
            continue
        distance = max(0, match.start() - end, start - match.end())
        nearest[found] = min(nearest.get(found, distance), distance)
    near = sum(math.exp(-distance / _REACH) for distance in nearest.values()) / len(wanted)
    known = wanted & {*stems_of(candidate.raw), *candidate.header_stems}
    return near, len(known) / len(wanted)


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))
