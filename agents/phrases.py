"""The words in a sentence that answer: candidates re-ranked by what the span reader finds in them.

`rank_evidence` says which sentences are likely; the span reader reads their passages and says which words answer, and
how much likelier they are than no answer at all. Both together are weighed by `phrase_weights`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lcdoc.agents import phrase_weights
from lcdoc.agents.answer_offers import offer
from lcdoc.agents.candidates import Candidate
from lcdoc.agents.evidence_ranking import Evidence, Phrase, Ranking
from lcdoc.agents.listing_questions import listing_question
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.span_reader.spans import SpanFinder
from lcdoc.agents.table_cells import cell_of
from lcdoc.documents import Span

READ_CHARACTERS = 6_000
"""Of the passages that the best sentences are in: some 1,500 tokens, a third of a second on two cores."""
EACH = 4
"""Answers looked for in a passage."""
UNREAD = -12.0
"""Margin of a sentence in which the span reader has no answer to offer."""
LEAST_MARGIN = -1.0
"""Below which a margin says no more of a question: in texts unlike those that the span reader was trained on it is far
below nought of answers, too."""
HOPELESS = 0.02
"""Relevance below which nothing is read: fewer than 1 in 100 questions that have an answer, 4 in 5 of the others."""
_AMOUNTS = frozenset({"number", "money", "percent", "duration"})
_YES_NO = re.compile(
    r"^(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must)\b",
    re.IGNORECASE,
)

_TELLS = re.compile(
    r"\bwhat\s+(?:happens|happened|(?:did|do|does)\b.*\b(?:say|think|discuss|suggest|propose|recommend|argue|decide|mean)\b)"
    r"|\b(?:describe|explain|discuss|summari[sz]e)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\b(?:who|whom|whose|what|when|where|which|how|why)\b|^(?:name|list|give|state|tell)\b", re.IGNORECASE
)

WANTED = ("words", "account")
"""What answers a question: words of a sentence, or a clause or more."""
SIGNALS = ("relevance", "confidence", "margin", "lead", "share", "fits")
"""What is known of a question after reading: log-odds of the sentences' relevance and confidence; the margin of the
best sentence's phrase, cut off below, and how far it leads the next one's; the best sentence's share; whether its
phrase is of the kind asked for."""


def read_phrases(question: Question, passages: Sequence[Passage], ranking: Ranking, finder: SpanFinder) -> Ranking:
    """`ranking` with the phrase that answers best in each of its sentences, weighed anew by both.

    Where passages read say nothing of an answer, its relevance falls. What is hopeless stays as it is.
    """
    if ranking.relevance < HOPELESS:
        return ranking
    ordered = in_order(question, with_phrases(question, passages, ranking.evidence, finder))
    signals = signals_of(question, replace(ranking, evidence=ordered))
    return replace(
        ranking,
        evidence=ordered,
        relevance=probability(signals, phrase_weights.RELEVANCE),
        confidence=probability(signals, phrase_weights.CONFIDENCE),
        threshold=phrase_weights.FOUND_THRESHOLD,
    )


def phrase_of(
    evidence: Evidence, question: Question, least: Mapping[str, float] = phrase_weights.CLAIM_MARGINS
) -> str | None:
    """What to claim of a sentence: its phrase, where a phrase can answer and is likely to; else None.

    Of a sentence that answers a question for all things of a kind, every phrase that beats no answer, in its order. Of
    a row of a table, the figure under the year asked for. A sentence that tells whether something is so has no phrase,
    nor has one about a subject that was named without a question.
    """
    if evidence.candidate.is_row:
        return cell_of(evidence.candidate, question)
    likely = [phrase for phrase in evidence.phrases if phrase.margin > least[wanted(question)]]
    if not likely or wants_yes_or_no(question) or not _ASKS.search(question.core):
        return None
    if question.kind in _AMOUNTS or listing_question(question.text) is None:
        return likely[0].text
    listed = [likely[0], *(phrase for phrase in likely[1:] if phrase.margin > 0)]
    return "; ".join(phrase.text for phrase in sorted(listed, key=lambda phrase: phrase.span.start))


def wanted(question: Question) -> str:
    """Which of `WANTED` answers a question."""
    told = question.kind in {"reason", "manner", "definition"} or _TELLS.search(question.core)
    return "account" if told else "words"


def in_order(
    question: Question, evidence: Sequence[Evidence], weights: Mapping[str, float] = phrase_weights.RANKING
) -> tuple[Evidence, ...]:
    """`evidence` scored by sentence and phrase together, best first, with the shares that follow."""
    scores = features_of(question, evidence) @ np.array([weights[name] for name in FEATURES])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-scores, kind="stable").tolist()
    return tuple(replace(evidence[i], score=float(scores[i]), share=float(shares[i])) for i in order)


FEATURES = ("sentence", "margin", "fits")
"""Of a sentence with its phrase: the sentence's own score; the phrase's margin; how well the phrase is of the kind
asked for."""


def features_of(question: Question, evidence: Sequence[Evidence]) -> np.ndarray:
    """(sentences, FEATURES)"""
    rows = []
    for one in evidence:
        margin = one.phrase.margin if one.phrase else UNREAD
        rows.append([one.score, margin, phrase_fits(question, one)])
    return np.array(rows, dtype=np.float64)


def phrase_fits(question: Question, evidence: Evidence) -> float:
    """How well the phrase is of the kind the question asks for, 0 to 1; 0 without a phrase."""
    if evidence.phrase is None:
        return 0.0
    return offer(question.kind, evidence.phrase.text, question.known).fits


def signals_of(question: Question, ranking: Ranking) -> dict[str, float]:
    """The `SIGNALS` of a ranking that `read_phrases` made."""
    margins = [max(LEAST_MARGIN, e.phrase.margin if e.phrase else UNREAD) for e in ranking.evidence]
    return {
        "relevance": _log_odds(ranking.relevance),
        "confidence": _log_odds(ranking.confidence),
        "margin": margins[0],
        "lead": margins[0] - max(margins[1:], default=LEAST_MARGIN),
        "share": ranking.evidence[0].share,
        "fits": phrase_fits(question, ranking.evidence[0]),
    }


def probability(signals: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The logistic function of the weighted sum."""
    total = weights["intercept"] + sum(weights[name] * value for name, value in signals.items())
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, total))))


def wants_yes_or_no(question: Question) -> bool:
    """Whether a phrase is no answer: what is asked is whether something is so, which the sentence tells."""
    return _YES_NO.match(question.core) is not None


def with_phrases(
    question: Question, passages: Sequence[Passage], evidence: Sequence[Evidence], finder: SpanFinder
) -> list[Evidence]:
    """Each sentence with the answers that begin in it, where its passage is among the best and was read."""
    candidates = [one.candidate for one in evidence]
    read = _worth_reading(passages, candidates)
    phrases: list[list[Phrase]] = [[] for _ in candidates]
    answers = finder.answers(question.core, [passages[index].text for index in read], each=EACH)
    for passage, found in zip((passages[index] for index in read), answers, strict=True):
        for answer in found:
            start = passage.span.start + answer.start
            home = _home(passage, start, passages, candidates)
            if home is None:
                continue
            # What runs on behind the sentence is not quoted with it.
            span = Span(start, min(passage.span.start + answer.end, candidates[home].span.end))
            if not any(span.overlaps(known.span) for known in phrases[home]):
                text = " ".join(span.of(passage.document.body).split())
                phrases[home].append(Phrase(span, text, answer.margin))
    best = (tuple(sorted(own, key=lambda phrase: -phrase.margin)) for own in phrases)
    return [replace(one, phrases=own) for one, own in zip(evidence, best, strict=True)]


def _home(passage: Passage, start: int, passages: Sequence[Passage], candidates: Sequence[Candidate]) -> int | None:
    """Which of the sentences an answer in `passage` begins in."""
    for index, candidate in enumerate(candidates):
        same = passages[candidate.passage].document.id == passage.document.id
        if same and candidate.span.start <= start < candidate.span.end:
            return index
    return None


def _worth_reading(passages: Sequence[Passage], candidates: Sequence[Candidate]) -> list[int]:
    """The passages of the best candidates, as many as `READ_CHARACTERS` take; at least one."""
    read: list[int] = []
    left = READ_CHARACTERS
    for index in dict.fromkeys(candidate.passage for candidate in candidates):
        left -= len(passages[index].text)
        if left < 0 and read:
            break
        read.append(index)
    return read


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-4), 1 - 1e-4)
    return math.log(share / (1 - share))
