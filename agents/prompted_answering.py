"""Answering through a language model, claim by claim, from numbered evidence that code resolves to checked quotes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel

from lcdoc.agents.models.errors import ContextOverflowError
from lcdoc.agents.models.model import OnText
from lcdoc.agents.notes import UNQUOTED_ANSWER, Claim, Draft, Note, Quote
from lcdoc.agents.packing import shortened
from lcdoc.agents.prompted_reading import MAX_NOTE_QUOTES, gathered
from lcdoc.agents.prompted_skill import UNQUOTED_CONFIDENCE, PromptedSkill, indices_of
from lcdoc.agents.prompts.asker import all_of
from lcdoc.agents.prompts.checks import is_refusal, plain, unquoted_figures
from lcdoc.agents.prompts.claim_stream import ClaimStream
from lcdoc.agents.prompts.evidence import Evidence, conclusions, evidence_of
from lcdoc.agents.prompts.schemas import Answering, Merging
from lcdoc.agents.prompts.templates import Skill
from lcdoc.agents.quotes import Citation

_CLAIM_SHARE = 0.25
"""Of the room for evidence, what one claim may take."""

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
        evidence = self._bounded("merge", Merging, evidence, question)
        parts = self._runs("merge", Merging, evidence, question)
        if len(parts) < 2:
            try:
                return await self._merged(evidence, question)
            except ContextOverflowError:
                if len(evidence) < 2:
                    raise
                middle = len(evidence) // 2
                parts = [evidence[:middle], evidence[middle:]]
        notes = await all_of([self._merge(part, question) for part in parts])
        smaller = evidence_of(notes)
        # Merging that drops nothing would go on for ever.
        return await self._merge(smaller, question) if len(smaller) < len(evidence) else gathered(notes, None)

    async def _merged(self, evidence: Sequence[Evidence], question: str) -> Note:
        fields = {"evidence": self._blocks.evidence(evidence), "question": question}
        merging = await self._asker.ask("merge", Merging, fields)
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
        `Claim.unquoted_figures`. The draft's confidence is the mean over its claims; where none of them has a quote,
        nothing is found. Evidence beyond the window is merged first.
        """
        evidence = evidence_of(notes)
        stream = ClaimStream(on_text) if on_text else None
        warnings: list[str] = []
        while evidence := await self._answerable(evidence, question, warnings):
            fields = {"evidence": self._blocks.evidence(evidence), "question": question}
            try:
                answering = await self._asker.ask("answer", Answering, fields, on_text=stream)
                break
            except ContextOverflowError:
                if len(evidence) < 2:
                    raise
                if len(self._runs("answer", Answering, evidence, question)) < 2:
                    evidence = await self._smaller(evidence, question, warnings)
        else:
            return Draft(found=False, warnings=tuple(warnings))
        draft = _draft(answering, evidence, question, warnings)
        if stream:
            stream.finish(draft.text)
        return draft

    async def _answerable(self, evidence: list[Evidence], question: str, warnings: list[str]) -> list[Evidence]:
        """`evidence`, or what is left of it when it was made smaller until it fits; `warnings` are added to."""
        while evidence:
            evidence = self._bounded("answer", Answering, evidence, question)
            if len(self._runs("answer", Answering, evidence, question)) < 2:
                break
            evidence = await self._smaller(evidence, question, warnings)
        return evidence

    async def _smaller(self, evidence: list[Evidence], question: str, warnings: list[str]) -> list[Evidence]:
        """`evidence` merged; where that makes it no less, without conclusions; where it has none, its surer half."""
        try:
            merged = evidence_of([await self._merge(evidence, question)])
        except ContextOverflowError as error:
            _log.info("%s: %s; the evidence is not merged", self._asker.name, error.problem)
            merged = evidence
        if len(merged) < len(evidence):
            return merged
        if conclusions(evidence):
            _log.info("%s: the evidence does not fit; what was concluded from quotes is left out", self._asker.name)
            return [replace(one, claims=()) if one.citation else one for one in merged]
        _log.warning("%s: the evidence does not fit; the weaker half is left out", self._asker.name)
        warnings.append("the evidence does not fit the model's window; the weaker half is left out of the answer")
        surest = sorted(
            range(len(evidence)), key=lambda index: (evidence[index].citation is None, -evidence[index].confidence)
        )
        return [evidence[index] for index in sorted(surest[: max(1, len(evidence) // 2)])]

    def _runs(
        self, skill: Skill, schema: type[BaseModel], evidence: Sequence[Evidence], question: str
    ) -> list[list[Evidence]]:
        """`evidence` in as few runs as fit a call each."""

        def alone(one: Evidence) -> str:
            return self._blocks.evidence([replace(one, claims=()) if one.citation else one])

        def shared(one: Evidence) -> dict[str, str]:
            return {claim: self._blocks.conclusion(claim, [1]) for claim in conclusions([one])}

        fixed = {"evidence": "", "question": question}
        return self._asker.fitting(skill, schema, evidence, fixed, alone, shared=shared)

    def _bounded(
        self, skill: Skill, schema: type[BaseModel], evidence: Sequence[Evidence], question: str
    ) -> list[Evidence]:
        """`evidence` with no claim longer than its share of the room: one alone must not crowd out the quotes."""
        room = int(self._asker.room(skill, schema, {"evidence": "", "question": question}) * _CLAIM_SHARE)
        most = {claim: shortened(claim, max(1, room), self._asker.count) for one in evidence for claim in one.claims}
        return [replace(one, claims=tuple(most[claim] for claim in one.claims)) for one in evidence]


def _draft(answering: Answering, evidence: Sequence[Evidence], question: str, warnings: Sequence[str]) -> Draft:
    quoted = [one for one in evidence if one.citation]
    claims: list[Claim] = []
    for claim in answering.claims if answering.found else ():
        cited = [quoted[index] for index in indices_of(claim.evidence, len(quoted))]
        citations = [one.citation for one in cited if one.citation]
        confidence = max((one.confidence for one in cited), default=UNQUOTED_CONFIDENCE)
        claims += checked_claim(claim.text, citations, confidence, question)
    return draft_of_claims(claims, warnings=warnings)


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


def draft_of_claims(claims: Sequence[Claim], *, dropped: int = 0, warnings: Sequence[str] = ()) -> Draft:
    """The answer that the claims are, as sure as they are on the whole.

    Claims of which none has a quote are no answer: they are left out, and a warning says so.
    """
    if not claims:
        return Draft(found=False, dropped=dropped, warnings=tuple(warnings))
    if not any(claim.citations for claim in claims):
        return Draft(found=False, dropped=dropped, warnings=(*warnings, UNQUOTED_ANSWER))
    mean = sum(claim.confidence for claim in claims) / len(claims)
    confidence = round(mean, 2)
    return Draft(found=True, claims=tuple(claims), confidence=confidence, dropped=dropped, warnings=tuple(warnings))


def _quoted_words(citation: Citation) -> str:
    return "\n".join([citation.quote, *citation.headings])
