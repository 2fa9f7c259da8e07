"""Answering through a language model, claim by claim, from numbered evidence that code resolves to checked quotes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.models.errors import ContextOverflowError
from lcdoc.agents.models.model import OnText
from lcdoc.agents.notes import Claim, Draft, Note, Quote
from lcdoc.agents.prompted_reading import MAX_NOTE_QUOTES, gathered
from lcdoc.agents.prompted_skill import UNQUOTED_CONFIDENCE, PromptedSkill, indices_of
from lcdoc.agents.prompts.asker import all_of
from lcdoc.agents.prompts.blocks import Evidence, evidence_of
from lcdoc.agents.prompts.checks import is_refusal, plain, unquoted_figures
from lcdoc.agents.prompts.claim_stream import ClaimStream
from lcdoc.agents.prompts.schemas import Answering, Merging
from lcdoc.agents.quotes import Citation

_log = logging.getLogger(__name__)


class PromptedAnswering(PromptedSkill):
    """Merges notes, and answers from them."""

    async def merge(self, notes: Sequence[Note], question: str) -> Note:
        """One note with the evidence that the answer needs. No call where at most one note found anything.

        More evidence than the window takes is merged in parts, and the parts again.
        """
        everything = gathered(notes, None)
        evidence = evidence_of(notes)
        if sum(note.found for note in notes) < 2 or not any(one.citation for one in evidence):
            return everything
        merged = await self._merge(evidence, question)
        return merged.model_copy(update={"dropped": everything.dropped})

    async def _merge(self, evidence: Sequence[Evidence], question: str) -> Note:
        fixed = {"evidence": "", "question": question}
        parts = self._asker.fitting("merge", Merging, evidence, fixed, self._evidence_block)
        if len(parts) > 1:
            notes = await all_of([self._merge(part, question) for part in parts])
            smaller = evidence_of(notes)
            # Merging that drops nothing would go on for ever.
            return await self._merge(smaller, question) if len(smaller) < len(evidence) else gathered(notes, None)
        shown = self._blocks.evidence(evidence)
        try:
            merging = await self._asker.ask("merge", Merging, {"evidence": shown, "question": question})
        except ContextOverflowError:
            if len(evidence) < 2:
                raise
            middle = len(evidence) // 2
            notes = await all_of([self._merge(half, question) for half in (evidence[:middle], evidence[middle:])])
            return gathered(notes, None)
        claim = plain(merging.claim)
        if not merging.found or is_refusal(claim):
            return Note(found=False)
        quoted = [one for one in evidence if one.citation]
        kept = [quoted[index] for index in indices_of(merging.keep, len(quoted))][:MAX_NOTE_QUOTES]
        if not kept:
            _log.info("%s: a merge named no evidence, so all of it is kept", self._asker.name)
            kept = sorted(quoted, key=lambda one: -one.confidence)[:MAX_NOTE_QUOTES]
        quotes = tuple(
            Quote(text=one.citation.quote, citation=one.citation, claim=one.claim, confidence=one.confidence)
            for one in kept
            if one.citation
        )
        confidence = merging.confidence if quotes else min(merging.confidence, UNQUOTED_CONFIDENCE)
        return Note(found=True, quotes=quotes, claim=claim, confidence=round(confidence, 2))

    async def answer(self, question: str, notes: Sequence[Note], *, on_text: OnText | None = None) -> Draft:
        """The answer that the quotes of `notes` bear out, claim by claim. No call where no note found anything.

        A claim is as sure as the strongest quote it cites; unsupported ones get at most `UNQUOTED_CONFIDENCE`, and one
        with figures that are neither in its quotes nor in the question half of its own: see
        `Claim.unquoted_figures`. The draft's confidence is the mean over its claims. Evidence beyond the window is
        merged first.
        """
        evidence = evidence_of(notes)
        if not evidence:
            return Draft(found=False)
        evidence = await self._answerable(evidence, question)
        stream = ClaimStream(on_text) if on_text else None
        while evidence:
            fields = {"evidence": self._blocks.evidence(evidence), "question": question}
            try:
                answering = await self._asker.ask("answer", Answering, fields, on_text=stream)
                break
            except ContextOverflowError:
                if len(evidence) < 2:
                    raise
                fitting = await self._answerable(evidence, question)
                evidence = fitting if len(fitting) < len(evidence) else self._stronger_half(evidence)
        else:
            return Draft(found=False)
        draft = _draft(answering, evidence, question)
        if stream:
            stream.finish(draft.text)
        return draft

    async def _answerable(self, evidence: list[Evidence], question: str) -> list[Evidence]:
        """`evidence`, or what is left of it when it was merged until it fits."""
        fixed = {"evidence": "", "question": question}
        if len(self._asker.fitting("answer", Answering, evidence, fixed, self._evidence_block)) > 1:
            evidence = evidence_of([await self._merge(evidence, question)])
        while len(self._asker.fitting("answer", Answering, evidence, fixed, self._evidence_block)) > 1:
            evidence = self._stronger_half(evidence)
        return evidence

    def _stronger_half(self, evidence: Sequence[Evidence]) -> list[Evidence]:
        """The surer half, in the order given."""
        _log.warning("%s: the evidence does not fit; the weaker half is left out", self._asker.name)
        surest = sorted(range(len(evidence)), key=lambda index: -evidence[index].confidence)
        return [evidence[index] for index in sorted(surest[: max(1, len(evidence) // 2)])]

    def _evidence_block(self, one: Evidence) -> str:
        return self._blocks.evidence([one])


def _draft(answering: Answering, evidence: Sequence[Evidence], question: str) -> Draft:
    quoted = [one for one in evidence if one.citation]
    claims: list[Claim] = []
    for claim in answering.claims if answering.found else ():
        cited = [quoted[index] for index in indices_of(claim.evidence, len(quoted))]
        citations = [one.citation for one in cited if one.citation]
        confidence = max((one.confidence for one in cited), default=UNQUOTED_CONFIDENCE)
        claims += checked_claim(claim.text, citations, confidence, question)
    return draft_of_claims(claims)


def checked_claim(text: str, citations: Sequence[Citation], confidence: float, question: str) -> list[Claim]:
    """A statement of an answer, as sure as what it cites lets it be; none where it states nothing."""
    text = plain(text)
    if not text or is_refusal(text):
        return []
    if not citations:
        return [Claim(text=text, confidence=round(min(confidence, UNQUOTED_CONFIDENCE), 2))]
    figures = unquoted_figures(text, [question, *map(_quoted_words, citations)])
    confidence = confidence / 2 if figures else confidence
    cited = tuple(citations)
    return [Claim(text=text, citations=cited, confidence=round(confidence, 2), unquoted_figures=figures)]


def draft_of_claims(claims: Sequence[Claim], *, dropped: int = 0) -> Draft:
    """The answer that the claims are, as sure as they are on the whole."""
    if not claims:
        return Draft(found=False, dropped=dropped)
    mean = sum(claim.confidence for claim in claims) / len(claims)
    return Draft(found=True, claims=tuple(claims), confidence=round(mean, 2), dropped=dropped)


def _quoted_words(citation: Citation) -> str:
    return "\n".join([citation.quote, *citation.headings])
