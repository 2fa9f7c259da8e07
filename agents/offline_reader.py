"""A reader without a language model: it finds the sentences that answer, and quotes them.

Every skill of `Reader` is here, so that each workflow runs on a machine that has no model: reading is ranking
sentences, merging is keeping the best, answering is quoting, summarising is choosing central sentences, choosing is
comparing. It puts nothing into words of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from lcdoc.agents.candidates import Candidate
from lcdoc.agents.claims import claim_of
from lcdoc.agents.evidence import Floats
from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.extractive_summary import SUMMARY_REVISION, central_points, summarise
from lcdoc.agents.folding import fold
from lcdoc.agents.models.model import OnText, Request
from lcdoc.agents.notes import (
    Choice,
    Claim,
    Draft,
    Judgement,
    Note,
    Quote,
    Summary,
    SummaryPoint,
    Verdict,
    same_evidence,
)
from lcdoc.agents.packing import cut_passage
from lcdoc.agents.phrases import phrase_of, read_phrases
from lcdoc.agents.prompts.checks import unquoted_figures
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import check_quote
from lcdoc.agents.reader import Passage
from lcdoc.agents.span_reader.model import load_span_model
from lcdoc.agents.span_reader.spans import SpanFinder
from lcdoc.agents.stems import stems_of
from lcdoc.documents import Document, Span
from lcdoc.retrieval.embedders import Embedder
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.retrieval.tokens import estimate_tokens

ROOM_TOKENS = 2_000
PASSAGE_TOKENS = 180
"""Of the pieces in which whole documents are ranked: the measures were fitted to passages of about this length."""
MAX_QUOTES = 3
_CERTAIN_SHARE = 0.75
"""Quotes are added until together they have this share of the probability that some candidate answers."""
_LEAST_SHARE = 0.15
"""A further quote must be at least this likely, compared with the best one."""
_ANNOUNCED_CHARACTERS = 500
MAX_MERGED_QUOTES = 5
_ANSWER_SHARE = 0.4
"""An answer's further claims must have at least this share of the confidence of its first."""
_WORDS_OF_OPTION = 0.5
_CHOICE_THRESHOLD = 0.15
_SUPPORTED_SHARE = 0.6
"""A claim is borne out by a quote that has at least this share of its words."""


class OfflineReader:
    """Reads with an embedder and counted words. Safe to share between tasks; the work is done in threads."""

    def __init__(self, embedder: Embedder, spans: Callable[[], SpanFinder] | None = load_span_model) -> None:
        """`spans` loads the model that finds the words which answer, when it is first needed; with None sentences are
        quoted whole."""
        self._embedder = embedder
        self._spans = spans

    @property
    def embedder(self) -> Embedder:
        """What it compares with: for skills that are not its own."""
        return self._embedder

    async def read(self, passage: Passage, question: str, carried: Note | None = None) -> Note:
        """The sentences of `passage` that answer. `read_many` is far quicker for several passages at once."""
        return await self.read_many([passage], question, carried)

    async def read_many(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> Note:
        """The best one to three sentences of all `passages` (best passage first), and the quotes of `carried`.

        Embeds about 1,000 tokens, however many passages there are. Raises what the embedder raises.
        """
        note = await asyncio.to_thread(self.note_of, passages, question)
        if carried is None:
            return note
        if not note.found:
            return carried.model_copy(update={"unchanged": True})
        return _merged([carried, note])

    def introduce(self, documents: Sequence[Document]) -> None:
        """Nothing to know: notes say where they are from."""

    def count(self, text: str) -> int:
        """An estimate: see `estimate_tokens`."""
        return estimate_tokens(text)

    def room(self, question: str, *, carrying: bool = False) -> int:
        """As much as is worth one note: the best sentences of more text would crowd each other out."""
        return ROOM_TOKENS

    @property
    def keeps(self) -> bool:
        """False: its readings cost nothing."""
        return False

    def parts(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> list[Sequence[Passage]]:
        """All passages in one part: they are ranked against each other."""
        return [passages] if passages else []

    def note_of(self, passages: Sequence[Passage], question: str) -> Note:
        """`read_many` without `carried`, in the caller's thread."""
        asked = Question.of(question)
        ranking = rank_evidence(asked, passages, self._embedder)
        if self._spans is not None:
            ranking = read_phrases(asked, passages, ranking, self._spans())
        if not ranking.found:
            return Note(found=False, confidence=round(5 * ranking.confidence, 2))
        best = ranking.evidence[: quoted_evidence(np.array([evidence.share for evidence in ranking.evidence]))]
        shares = sum(evidence.share for evidence in best)
        quotes: list[Quote] = []
        dropped = 0
        for evidence in best:
            document = passages[evidence.candidate.passage].document
            text, near = quotable(document, evidence.candidate)
            citation = check_quote(document, text, near=near)
            if citation is None:
                dropped += 1
                continue
            quotes.append(
                Quote(
                    text=citation.quote,
                    citation=citation,
                    claim=(self._spans and phrase_of(evidence, asked)) or claim_of(citation.quote, asked),
                    confidence=round(5 * ranking.confidence * evidence.share / shares, 2),
                )
            )
        return Note(
            found=bool(quotes),
            quotes=tuple(quotes),
            claim=quotes[0].claim if quotes else "",
            confidence=round(5 * ranking.confidence, 2),
            dropped=dropped,
        )

    def requests(self, passage: Passage, question: str) -> Sequence[Request]:
        """None."""
        return ()

    async def merge(self, notes: Sequence[Note], question: str) -> Note:
        """The best quotes of all notes, each piece of evidence once."""
        return _merged(notes)

    async def answer(self, question: str, notes: Sequence[Note], *, on_text: OnText | None = None) -> Draft:
        """One to three claims, the most confident first. A note without quotes gives a claim without citation."""
        draft = self._draft(question, notes)
        if on_text is not None and draft.text:
            on_text(draft.text)
        return draft

    def _draft(self, question: str, notes: Sequence[Note]) -> Draft:
        asked = Question.of(question)
        merged = _merged(notes)
        if not merged.found:
            return Draft(found=False, confidence=merged.confidence)
        claims: list[Claim] = []
        for quote in merged.quotes[:MAX_QUOTES]:
            if claims and quote.confidence < _ANSWER_SHARE * claims[0].confidence:
                break
            text = quote.claim or claim_of(quote.citation.quote, asked)
            same = next((index for index, claim in enumerate(claims) if claim.text.casefold() == text.casefold()), None)
            if same is None:
                claims.append(Claim(text=text, citations=(quote.citation,), confidence=quote.confidence))
            else:
                # The same words in another place bear the claim out.
                citations = (*claims[same].citations, quote.citation)
                claims[same] = claims[same].model_copy(update={"citations": citations})
        if not claims and merged.claim:
            claims.append(Claim(text=merged.claim, confidence=merged.confidence))
        return Draft(found=bool(claims), claims=tuple(claims), confidence=merged.confidence)

    def fits(self, passages: Sequence[Passage], question: str) -> bool:
        """Always: sentences are ranked, however many there are."""
        return True

    async def answer_from(self, passages: Sequence[Passage], question: str, *, on_text: OnText | None = None) -> Draft:
        """The best sentences of all passages, as `answer` gives them."""
        pieces = await asyncio.to_thread(_ranked_pieces, passages)
        note = await self.read_many(pieces, question)
        draft = await self.answer(question, [note], on_text=on_text)
        return draft.model_copy(update={"dropped": note.dropped})

    async def judge(self, question: str, claims: Sequence[Claim], *, passages: Sequence[Passage] = ()) -> Judgement:
        """Supported is a claim most of whose words stand in one of its quotes; best the one whose quotes are strongest.

        A quote is strong by the words it shares with the claim and the question, and by being among those this reader
        would take from `passages` itself. Nothing is ever found contradicted: that takes understanding.
        """
        noted = await self.read_many(passages, question) if passages else Note(found=False)
        wanted = set(Question.of(question).stems)
        strengths = [_strength(claim, wanted, noted) for claim in claims]
        best = max(range(len(claims)), key=strengths.__getitem__, default=None)
        verdicts: tuple[Verdict, ...] = tuple("supported" if strength else "not_shown" for strength in strengths)
        if best is None or not strengths[best]:
            return Judgement(verdicts=verdicts, reason="no claim stands in its quotes")
        others = sum(strengths) - strengths[best]
        return Judgement(
            verdicts=verdicts,
            best=best,
            reason="its quotes share most words with the claim and the question",
            confidence=round(5 * strengths[best] / (1 + others), 2),
        )

    async def summarize(self, passages: Sequence[Passage], *, words: int) -> Summary:
        """Central sentences of the passages, in order, from every part of them: see `extractive_summary`."""
        return await asyncio.to_thread(summarise, passages, self._embedder, words=words)

    async def condense(self, points: Sequence[SummaryPoint], *, words: int) -> Summary:
        """The most central of the points, in order, unchanged."""
        return await asyncio.to_thread(central_points, points, self._embedder, words=words)

    @property
    def fingerprint(self) -> str:
        return f"offline {SUMMARY_REVISION}, {self._embedder.fingerprint}"

    async def choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        """The option most like the question that is not on the trail yet; None when none is like it at all."""
        return await asyncio.to_thread(self._choose, question, options, trail)

    def _choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        visited = {fold(text) for text in trail}
        open_options = [index for index, option in enumerate(options) if fold(option) not in visited]
        if not open_options or not question.strip():
            return Choice(option=None, reason="nothing to choose from")
        vectors = self._embedder.embed([question, *(options[index] for index in open_options)])
        wanted = Question.of(question).stems
        words: Floats = np.array(
            [len(set(wanted) & set(stems_of(options[index]))) / max(1, len(wanted)) for index in open_options],
            dtype=np.float32,
        )
        scores = vectors[1:] @ vectors[0] + _WORDS_OF_OPTION * words
        best = int(np.argmax(scores))
        if scores[best] < _CHOICE_THRESHOLD:
            return Choice(option=None, reason=f"no option is about the question (similarity {scores[best]:.2f})")
        shares = np.exp(10 * (scores - scores.max()))
        share = float(shares[best] / shares.sum())
        return Choice(
            option=open_options[best],
            reason=f"closest to the question (similarity {scores[best]:.2f})",
            confidence=round(5 * share * min(1.0, float(scores[best])), 2),
        )


def _ranked_pieces(passages: Sequence[Passage]) -> list[Passage]:
    """`passages` in pieces of the length that the measures know, under the titles of their own sections."""
    pieces = [piece for passage in passages for piece in cut_passage(passage, PASSAGE_TOKENS, estimate_tokens)]
    return [
        replace(piece, heading_path=tuple(section.title for section in piece.document.sections_at(piece.span.start)))
        for piece in pieces
    ]


def quoted_evidence(shares: Floats) -> int:
    """How many of the candidates, whose shares come best first, to quote."""
    count, together = 0, 0.0
    for share in shares[:MAX_QUOTES].tolist():
        if count and (together >= _CERTAIN_SHARE or share < _LEAST_SHARE * float(shares[0])):
            break
        count, together = count + 1, together + share
    return count


def quotable(document: Document, candidate: Candidate) -> tuple[str, Span]:
    """What to quote of a candidate, and near where.

    A table row comes with the years that head its columns; a sentence that ends in a colon with what it announces.
    """
    body, span = document.body, candidate.span
    if candidate.header is not None:
        near = Span(candidate.header.start, span.end)
        if not body[candidate.header.end : span.start].strip():
            return near.of(body), near
        return f"{candidate.header.of(body)} … {candidate.raw}", near
    if candidate.text.endswith(":"):
        announced = sentence_spans(body, span.end, span.end + _ANNOUNCED_CHARACTERS)
        # The last one may be cut by the window.
        if len(announced) > 1:
            span = Span(span.start, announced[0].end)
    return span.of(body), span


def _strength(claim: Claim, wanted: set[str], noted: Note) -> float:
    """How well the best quote of `claim` bears it out, 0 to 1; 0 where its words or figures are not in any."""
    stems = set(stems_of(claim.text))
    strongest = 0.0
    for citation in claim.citations:
        quoted = set(stems_of(citation.quote))
        share = len(stems & quoted) / max(1, len(stems))
        if share < _SUPPORTED_SHARE or unquoted_figures(claim.text, [citation.quote]):
            continue
        asked = len(wanted & quoted) / max(1, len(wanted))
        noticed = any(same_evidence(citation, quote.citation) for quote in noted.quotes)
        strongest = max(strongest, (0.5 * share + 0.3 * asked + 0.2 * noticed) * citation.score / 100)
    return strongest


def _merged(notes: Iterable[Note]) -> Note:
    notes = list(notes)
    found = [note for note in notes if note.found]
    dropped = sum(note.dropped for note in notes)
    if not found:
        return Note(found=False, confidence=max((note.confidence for note in notes), default=0.0), dropped=dropped)
    quotes: list[Quote] = []
    everything = [quote for note in found for quote in note.quotes]
    for quote in sorted(everything, key=lambda quote: -quote.confidence):
        if not any(same_evidence(quote.citation, kept.citation) for kept in quotes):
            quotes.append(quote)
    best = max(found, key=lambda note: (bool(note.quotes), note.confidence))
    return Note(
        found=True,
        quotes=tuple(quotes[:MAX_MERGED_QUOTES]),
        claim=best.claim,
        confidence=best.confidence,
        dropped=dropped,
    )
