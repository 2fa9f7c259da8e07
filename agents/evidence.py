"""What can be measured of a candidate sentence for a question without a language model.

Similarity of vectors and of words, the offer of an answer of the wanted kind, and the surroundings: neighbours,
heading, passage. How the measures are weighed is learned (`evidence_weights`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PureWindowsPath

import numpy as np
import numpy.typing as npt

from lcdoc.agents.answer_offers import offer
from lcdoc.agents.candidates import Candidate
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import stem, stems_of, tokens_of

Floats = npt.NDArray[np.float32]
Agreement = dict[str, float]
"""For each stem of the question, from 0 to 1, whether some text has it."""

FEATURES = (
    "cosine",
    "cosine_margin",
    "recall",
    "neighbour_recall",
    "heading_recall",
    "passage_recall",
    "pairs",
    "figure_fits",
    "name_fits",
    "clause_fits",
    "number_recall",
    "other_year",
    "counted",
    "name_recall",
    "names_missing_nearby",
    "novelty",
    "short",
    "long",
    "is_question",
    "is_fragment",
    "is_row",
    "row_for_figure",
    "rank",
    "passage_cosine",
)
"""Names of the columns of what is measured."""
COLUMN = {name: index for index, name in enumerate(FEATURES)}
VECTOR_FEATURES = ("cosine", "cosine_margin", "passage_cosine")
"""Those that need vectors; the others are measured first, to choose which candidates are worth one."""

FIGURES = frozenset({"date", "duration", "number", "money", "percent"})
NAMES = frozenset({"person", "place"})
_PARTIAL = 0.7
"""What it counts when a stem agrees with the question's only in its first letters (`decision`, `decided`)."""
_SUBJECT_WEIGHT = 0.3
"""What a name weighs that the whole document is about: its sentences say "the company", or "she"."""
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_SMALL_NUMBERS = frozenset(
    map(stem, ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty"])
)
_SENTENCE = 120
"""Characters of an average sentence, to turn the length of a document into a number of sentences."""


@dataclass(frozen=True)
class Measured:
    """Measures of candidates, shape (candidates, features), float32; those in `VECTOR_FEATURES` are still 0."""

    values: Floats
    absent: float
    """Share of the question's weight whose stems occur nowhere in the documents."""
    absent_names: float
    """Share of the question's names that occur nowhere in the documents."""


def measure_words(question: Question, passages: Sequence[Passage], candidates: Sequence[Candidate]) -> Measured:
    """Everything but the similarity of vectors."""
    frequencies = _frequencies(question, passages, candidates)
    sentences = 1 + sum(len(body) for body in _bodies(passages)) // _SENTENCE
    rarity = {s: math.log(1 + sentences / (1 + n)) / math.log(2 + sentences) for s, n in frequencies.items()}
    weights = question.weights(rarity)
    for s in _subject(question, passages):
        weights[s] *= _SUBJECT_WEIGHT
    own = [_agreement(question, [*candidate.stems, *candidate.header_stems]) for candidate in candidates]
    headings = [_agreement(question, stems_of(" ".join(passage.heading_path))) for passage in passages]
    whole: list[Agreement] = [dict.fromkeys(question.stems, 0.0) for _ in passages]
    for candidate, agreement in zip(candidates, own, strict=True):
        whole[candidate.passage] = _union(whole[candidate.passage], agreement)
    headed = _headed(passages, candidates, own, headings)
    pairs = set(pairwise(question.stems))
    values = np.zeros((len(candidates), len(FEATURES)), dtype=np.float32)
    for index, candidate in enumerate(candidates):
        nearby = own[index]
        for other in (index - 1, index + 1):
            if 0 <= other < len(candidates) and candidates[other].passage == candidate.passage:
                nearby = _union(nearby, own[other])
        around = _union(whole[candidate.passage], headed[index])
        recall = _recall(weights, own[index])
        measured = {
            "recall": recall,
            "neighbour_recall": _recall(weights, nearby) - recall,
            "heading_recall": _recall(weights, _union(own[index], headed[index])) - recall,
            "passage_recall": _recall(weights, around) - recall,
            "name_recall": _share(own[index][s] for s in question.names if s in own[index]),
            "names_missing_nearby": _share(around[s] == 0 for s in question.names if s in around),
            "rank": 1 / (1 + candidate.passage),
        }
        measured |= _form(question, candidate, own[index], pairs)
        for name, value in measured.items():
            values[index, COLUMN[name]] = value
    missing = {s for s, n in frequencies.items() if n == 0}
    return Measured(
        values,
        absent=_recall(weights, {s: float(s in missing) for s in weights}),
        absent_names=_share(s in missing for s in question.names if s in weights),
    )


def _headed(
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    own: Sequence[Agreement],
    headings: Sequence[Agreement],
) -> list[Agreement]:
    """For each candidate, the agreement of what it stands under: section titles and the last fragment before it."""
    headed: list[Agreement] = []
    current, passage = headings[0] if passages else {}, 0
    for candidate, agreement in zip(candidates, own, strict=True):
        if candidate.passage != passage:
            current, passage = headings[candidate.passage], candidate.passage
        headed.append(_union(headings[passage], current))
        if candidate.is_fragment:
            current = agreement
    return headed


def _form(
    question: Question, candidate: Candidate, own: Agreement, pairs: set[tuple[str, str]]
) -> dict[str, float | bool]:
    """What a candidate is like in itself: the answer it offers, its length, its kind."""
    stems = candidate.stems
    distinct = set(stems)
    fits = offer(question.kind, candidate.text, question.known).fits - 0.5
    about_figures = question.kind in FIGURES
    group = "figure_fits" if about_figures else "name_fits" if question.kind in NAMES else "clause_fits"
    return {
        group: fits,
        "pairs": len(pairs & set(pairwise(stems))) / len(pairs) if pairs else 0.0,
        "number_recall": _share(n in distinct or n in candidate.header_stems for n in question.numbers),
        "other_year": _is_of_another_year(question, candidate),
        "counted": bool(question.counted) and not candidate.is_row and _counts(question.counted, stems),
        "novelty": sum(s not in own for s in distinct) / (len(stems) + 1),
        "short": max(0.0, 1 - sum(s[0].isalpha() for s in stems) / 6),
        "long": min(2.0, len(stems) / 30),
        "is_question": candidate.text.endswith("?"),
        "is_fragment": candidate.is_fragment,
        "is_row": candidate.is_row,
        "row_for_figure": candidate.is_row and about_figures,
    }


def _is_of_another_year(question: Question, candidate: Candidate) -> bool:
    """Whether the question names years, and the candidate (or its columns' header) names years, but no common one."""
    wanted = {n for n in question.numbers if _YEAR.fullmatch(n)}
    given = {s for s in (*candidate.stems, *candidate.header_stems) if _YEAR.fullmatch(s)}
    return bool(wanted and given) and not wanted & given


def _counts(counted: frozenset[str], stems: Sequence[str]) -> bool:
    """Whether a number is followed, within a few words, by what the question wants counted."""
    return any(
        (s[0].isdigit() or s in _SMALL_NUMBERS) and not counted.isdisjoint(stems[index + 1 : index + 8])
        for index, s in enumerate(stems)
    )


def with_vectors(measured: Measured, cosines: Floats, passage_cosines: Floats) -> Floats:
    """All features, given the cosines of the question with each candidate and with each candidate's passage."""
    values = measured.values.copy()
    if len(values):
        values[:, COLUMN["cosine"]] = cosines
        values[:, COLUMN["cosine_margin"]] = cosines - float(cosines.max())
        values[:, COLUMN["passage_cosine"]] = passage_cosines
    return values


def _bodies(passages: Sequence[Passage]) -> list[str]:
    return list({passage.document.id: passage.document.body for passage in passages}.values())


def _frequencies(question: Question, passages: Sequence[Passage], candidates: Sequence[Candidate]) -> dict[str, int]:
    """How often each stem of the question occurs in the documents of the passages.

    In a whole document the stem is counted as the beginning of words, which is quick and near enough.
    """
    at_hand = Counter(s for candidate in candidates for s in set(candidate.stems))
    lowered = [body.lower() for body in _bodies(passages)]
    counts: dict[str, int] = {}
    for s in question.stems:
        begins = sum(text.count(f" {s}") + text.count(f"\n{s}") for text in lowered)
        # After a quotation mark, a bracket, or inside a compound; and "1,234", which is "1234" as a stem.
        counts[s] = max(begins, at_hand[s]) or int(any(s in text for text in lowered))
    return counts


def _subject(question: Question, passages: Sequence[Passage]) -> set[str]:
    """Names in the question that every document at hand has in its title or file name: what it is all about."""
    documents = {passage.document.id: passage.document for passage in passages}.values()
    titles = [
        "".join(tokens_of(f"{document.source.title} {PureWindowsPath(document.source.path).name}"))
        for document in documents
    ]
    return {s for s in question.names if s in question.stems and len(s) > 2 and all(s in title for title in titles)}


def _agreement(question: Question, stems: Sequence[str]) -> Agreement:
    distinct = set(stems)
    return {s: 1.0 if s in distinct else _partial_agreement(s, distinct) for s in question.stems}


def _partial_agreement(wanted: str, stems: set[str]) -> float:
    if len(wanted) < 5 or not wanted.isalpha():
        return 0.0
    beginning = wanted[: max(4 if len(wanted) == 5 else 5, round(len(wanted) * 0.75))]
    return _PARTIAL if any(s.startswith(beginning) and abs(len(s) - len(wanted)) <= 4 for s in stems) else 0.0


def _union(one: Agreement, other: Agreement) -> Agreement:
    return {s: max(value, other[s]) for s, value in one.items()}


def _recall(weights: Mapping[str, float], agreement: Mapping[str, float]) -> float:
    total = sum(weights.values())
    return sum(weight * agreement[s] for s, weight in weights.items()) / total if total else 0.0


def _share(parts: Iterable[float]) -> float:
    """The mean of `parts`, 0 when there are none."""
    values = list(parts)
    return sum(values) / len(values) if values else 0.0
