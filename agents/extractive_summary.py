"""A summary in the document's own sentences: the central ones of every part, in order.

Centrality is continuous LexRank (Erkan and Radev, "LexRank: Graph-based Lexical Centrality as Salience in Text
Summarization", section 3.3) over sentence vectors; sentences are then taken by maximal marginal relevance (Carbonell
and Goldstein, "The Use of MMR"). Words are shared out over the sections by their length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lcdoc.agents.candidates import Candidate, candidates_of
from lcdoc.agents.claims import claim_of
from lcdoc.agents.evidence import Floats
from lcdoc.agents.notes import Summary, SummaryPoint
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import check_quote
from lcdoc.agents.reader import Passage
from lcdoc.retrieval.embedders import Embedder

SUMMARY_REVISION = 1
"""Goes up when the same text would be summarised otherwise."""
MAX_EMBEDDED = 320
"""Sentences that get vectors, whatever the length of the text: about 10,000 tokens, 2 s on two cores."""
_POINT_WORDS = 24
"""Words of an average sentence, by which a number of words is turned into a number of points."""
_SHORTEST, _LONGEST = 7, 45
"""Words of a sentence that may stand in a summary."""
_NOVELTY = 0.45
"""How much likeness to what is chosen already counts against centrality."""
_DAMPING = 0.85
_OPENING_QUOTES = "\"“‘'«„「『"
_DEPENDENT = re.compile(
    r"(?:these|this|those|such|it|its|he|she|they|his|her|their|also|however|in addition|further(?:more)?|therefore"
    r"|thus|moreover|accordingly|as a result|for example|and|but|or|so)\b",
    re.IGNORECASE,
)
"""Openings of sentences that lean on the one before."""
_LEANING = 0.6
_LEAD = 0.25
"""What it is worth to be the first sentence of a passage, as a share of the highest centrality."""
_NOTHING_ASKED = Question.of("")


@dataclass
class _Part:
    """Neighbouring passages that get points together."""

    passages: list[int]
    characters: int
    points: int = 1
    sentences: list[Candidate] = field(default_factory=list)


def summarise(passages: Sequence[Passage], embedder: Embedder, *, words: int) -> Summary:
    """What `passages` say in about `words` words, never more unless one sentence is. Each point cites its sentence.

    Passages are taken in the order of their documents. Raises ValueError unless `words` is positive, and what the
    embedder raises.
    """
    if words < 1:
        raise ValueError(f"a summary has at least one word, not {words}")
    order = {document_id: index for index, document_id in enumerate(dict.fromkeys(p.document.id for p in passages))}
    passages = sorted(passages, key=lambda passage: (order[passage.document.id], passage.span))
    sentences = [candidate for candidate in candidates_of(passages) if _is_statement(candidate)]
    if not sentences:
        return Summary()
    wanted = max(1, round(words / _POINT_WORDS))
    parts = _parts(passages, sentences, wanted)
    _share_out(parts, wanted)
    kept = _preselected(parts)
    vectors = embedder.embed([sentence.text for sentence in kept])
    centrality = np.zeros(len(kept), dtype=np.float32)
    first_of = {passage: sentence.span for passage, sentence in reversed([(c.passage, c) for c in sentences])}
    chosen: list[int] = []
    for part in parts:
        inside = set(part.passages)
        indices = [index for index, sentence in enumerate(kept) if sentence.passage in inside]
        centrality[indices] = _centrality(vectors[indices])
        for index in indices:
            sentence = kept[index]
            centrality[index] += _LEAD * (first_of[sentence.passage] == sentence.span)
            centrality[index] *= _LEANING if _DEPENDENT.match(sentence.text) else 1.0
        chosen += _by_marginal_relevance(vectors, centrality, indices, chosen, part.points)
    return _points(passages, [kept[index] for index in _within(words, kept, centrality, chosen)])


def central_points(points: Sequence[SummaryPoint], embedder: Embedder, *, words: int) -> Summary:
    """The points most like the others and least like each other, in order: as many as `words` admit, at least one.

    Raises ValueError unless `words` is positive, and what the embedder raises.
    """
    if words < 1:
        raise ValueError(f"a summary has at least one word, not {words}")
    lengths = [len(point.text.split()) for point in points]
    if sum(lengths) <= words or len(points) < 2:
        return Summary(points=tuple(points))
    vectors = embedder.embed([point.text for point in points])
    centrality = _centrality(vectors)
    ranked = _by_marginal_relevance(vectors, centrality, range(len(points)), (), len(points))
    taken: list[int] = []
    left = words
    for index in ranked:
        if lengths[index] <= left or not taken:
            taken.append(index)
            left -= lengths[index]
    return Summary(points=tuple(points[index] for index in sorted(taken)))


def _is_statement(candidate: Candidate) -> bool:
    """Whether it is a sentence that can stand alone: no heading, row, question, fragment or list of names."""
    text = candidate.text
    words = text.split()
    if not (text[0].isalpha() or text[0] in _OPENING_QUOTES) or text[:2].islower():
        return False
    if not _SHORTEST <= len(words) <= _LONGEST or candidate.is_row or text[-1] not in '.!。”"’)':
        return False
    return sum(word[0].isdigit() or not word[0].isalnum() for word in words) * 3 < len(words)


def _parts(passages: Sequence[Passage], sentences: Sequence[Candidate], wanted: int) -> list[_Part]:
    """Passages grouped by section; the shortest neighbours are joined until there are no more parts than points."""
    parts: list[_Part] = []
    heading: tuple[str, tuple[str, ...]] | None = None
    by_passage: dict[int, list[Candidate]] = {}
    for sentence in sentences:
        by_passage.setdefault(sentence.passage, []).append(sentence)
    for index, passage in enumerate(passages):
        if index not in by_passage:
            continue
        here = (passage.document.id, passage.heading_path)
        if not parts or here != heading:
            parts.append(_Part([], 0))
        heading = here
        parts[-1].passages.append(index)
        parts[-1].characters += sum(len(sentence.text) for sentence in by_passage[index])
        parts[-1].sentences += by_passage[index]
    while len(parts) > wanted:
        at = min(range(len(parts) - 1), key=lambda index: parts[index].characters + parts[index + 1].characters)
        one, other = parts[at], parts.pop(at + 1)
        parts[at] = _Part(
            one.passages + other.passages, one.characters + other.characters, 1, one.sentences + other.sentences
        )
    return parts


def _share_out(parts: Sequence[_Part], wanted: int) -> None:
    """Give each part one point, and the rest where the most characters stand behind a point."""
    for _ in range(wanted - len(parts)):
        open_parts = [part for part in parts if part.points < len(part.sentences)]
        if not open_parts:
            return
        max(open_parts, key=lambda part: part.characters / part.points).points += 1


def _preselected(parts: Sequence[_Part]) -> list[Candidate]:
    """At most `MAX_EMBEDDED` sentences, in order: of each part those with the most words that matter in it."""
    total = sum(len(part.sentences) for part in parts)
    if total <= MAX_EMBEDDED:
        return [sentence for part in parts for sentence in part.sentences]
    everywhere = Counter(s for part in parts for sentence in part.sentences for s in set(sentence.stems))
    kept: list[Candidate] = []
    for part in parts:
        counts = Counter(s for sentence in part.sentences for s in set(sentence.stems))
        weight = {s: n * math.log(1 + total / everywhere[s]) for s, n in counts.items()}
        scores = [
            sum(weight[s] for s in set(sentence.stems)) / math.sqrt(8 + len(sentence.stems))
            for sentence in part.sentences
        ]
        room = max(part.points, MAX_EMBEDDED * len(part.sentences) // total)
        best = sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:room])
        kept += [part.sentences[index] for index in best]
    return kept


def _centrality(vectors: Floats) -> Floats:
    """LexRank of each row, scaled to at most 1: the stationary distribution of a walk along likeness."""
    likeness = np.clip(vectors @ vectors.T, 0.0, None)
    np.fill_diagonal(likeness, 0.0)
    totals = likeness.sum(axis=1, keepdims=True)
    count = len(vectors)
    walk = np.divide(likeness, totals, out=np.full_like(likeness, 1 / count), where=totals > 0)
    rank: Floats = np.full(count, 1 / count, dtype=np.float32)
    for _ in range(50):
        moved = (1 - _DAMPING) / count + _DAMPING * (walk.T @ rank)
        done = float(np.abs(moved - rank).sum()) < 1e-6
        rank = moved.astype(np.float32)
        if done:
            break
    scaled: Floats = rank / rank.max()
    return scaled


def _by_marginal_relevance(
    vectors: Floats, centrality: Floats, indices: Sequence[int], chosen: Sequence[int], count: int
) -> list[int]:
    taken: list[int] = []
    left = list(indices)
    while left and len(taken) < count:
        against = [*chosen, *taken]
        likeness = (vectors[left] @ vectors[against].T).max(axis=1) if against else np.zeros(len(left))
        best = int(np.argmax((1 - _NOVELTY) * centrality[left] - _NOVELTY * likeness))
        taken.append(left.pop(best))
    return taken


def _within(words: int, kept: Sequence[Candidate], centrality: Floats, chosen: Sequence[int]) -> list[int]:
    """Of the chosen, in order, as many as `words` admit: the least central go first, but the last one stays."""
    staying = sorted(chosen)
    while len(staying) > 1 and sum(len(kept[index].text.split()) for index in staying) > words:
        staying.remove(min(staying, key=lambda index: float(centrality[index])))
    return staying


def _points(passages: Sequence[Passage], sentences: Sequence[Candidate]) -> Summary:
    points: list[SummaryPoint] = []
    for sentence in sentences:
        passage = passages[sentence.passage]
        citation = check_quote(passage.document, sentence.raw, near=sentence.span)
        if citation is not None:
            text = claim_of(citation.quote, _NOTHING_ASKED)
            points.append(SummaryPoint(text=text, heading_path=passage.heading_path, citations=(citation,)))
    return Summary(points=tuple(points))
