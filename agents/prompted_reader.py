"""A reader that asks a language model, and believes nothing it says without looking.

Each skill is one prompt (`prompts/`), one schema, and code around them: passages are packed into as few calls as the
window takes, document text goes in as fenced data, quotes are checked on arrival, evidence is named by numbers that
code resolves. Whatever a document talks a model into, no citation comes out that is not in the source.

Prompts after "SEGMENT+" (notes of evidence and reasoning), "LLMxMapReduce" (confidence with a shared rubric) and
"Chain of Agents" (a carried message; its published budget forgets that message and the answer, this one does not).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.models.errors import ContextOverflowError
from lcdoc.agents.models.model import ChatModel, OnText, Profile
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
    best_citation,
    checked_note,
    same_evidence,
)
from lcdoc.agents.packing import shortened
from lcdoc.agents.prompts.asker import LEAST_ROOM_TOKENS, Asker, all_of
from lcdoc.agents.prompts.blocks import Blocks, Evidence, evidence_of
from lcdoc.agents.prompts.checks import is_refusal, plain, unquoted_figures
from lcdoc.agents.prompts.claim_stream import ClaimStream
from lcdoc.agents.prompts.fence import Fence, restored
from lcdoc.agents.prompts.schemas import (
    CHOICES,
    JUDGEMENTS,
    READINGS,
    Answering,
    Condensing,
    Merging,
    Reading,
    ReasonedReading,
    Summarizing,
)
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage

MAX_QUOTES = 8
"""Quotes taken from one reading."""
MAX_NOTE_QUOTES = 16
"""Quotes of a note that several readings were put together to; the strongest stay."""
UNQUOTED_CONFIDENCE = 1.0
"""The most that is given to a claim for which no quote stands in the source."""

_CARRIED_SHARE = 0.2
"""Of the room for text, what the carried note may take."""
_LEAST_SUMMARY_WORDS = 60
_TOO_LONG = 1.3
"""A summary made of several is shortened when it is this many times longer than asked for."""

_log = logging.getLogger(__name__)


class PromptedReader:
    """Reads through a `ChatModel` that parses answers (`StructuredModel` or what is around it).

    Safe to share between tasks of one event loop. Skills raise ModelError; where several calls were under way, after
    all of them have ended, so that nothing paid for is thrown away unstored.
    """

    def __init__(self, model: ChatModel, *, secret: bytes, profile: Profile | None = None) -> None:
        """`secret` keys the fences: the library's, 16 bytes or more. `profile` is the model's own by default."""
        self._blocks = Blocks(Fence(secret))
        self._asker = Asker(model, profile or model.spec.profile, self._blocks)
        self._reading = READINGS[self._asker.profile]

    # Reading

    async def read(self, passage: Passage, question: str, carried: Note | None = None) -> Note:
        """What `passage` adds to the question: see `read_many`."""
        return await self.read_many([passage], question, carried)

    async def read_many(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> Note:
        """What all `passages` together add to the question, in as few calls as fit the window, made at once.

        The quotes of `carried` and of every reading are kept, the strongest `MAX_NOTE_QUOTES`. Quotes that are not in
        the source are dropped and counted. A claim of which no quote is left stays, as unsupported, with a confidence
        of at most `UNQUOTED_CONFIDENCE`. With nothing to add, `carried` comes back with `unchanged` set.
        """
        shown = self._carried(carried, question)

        async def read(pack: Sequence[Passage]) -> Note:
            fields = {"passages": self._asker.passages(pack), "carried": shown, "question": question}
            return self._note(pack, await self._asker.ask("read", self._reading, fields))

        fixed = {"passages": "", "carried": shown, "question": question}
        notes = await self._asker.each_pack("read", self._reading, passages, fixed, read)
        return _together(notes, carried)

    def parts(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> list[Sequence[Passage]]:
        """The packs of `passages` that `read_many` would read, a call each.

        Raises ModelConfigError where the window has no room for a sentence.
        """
        fixed = {"passages": "", "carried": self._carried(carried, question), "question": question}
        return [*self._asker.packed("read", self._reading, passages, fixed)] if passages else []

    def _carried(self, carried: Note | None, question: str) -> str:
        """The carried note, with as many of its quotes as its share of the window takes."""
        if carried is None or not carried.found:
            return ""
        room = self._asker.room("read", self._reading, {"passages": "", "carried": "", "question": question})
        room = int(room * _CARRIED_SHARE)
        while carried.quotes and self._asker.count(self._blocks.carried(carried)) > room:
            weakest = min(reversed(carried.quotes), key=lambda quote: quote.confidence)
            carried = carried.model_copy(update={"quotes": tuple(q for q in carried.quotes if q is not weakest)})
        claim = shortened(carried.claim, max(room, LEAST_ROOM_TOKENS), self._asker.count)
        return self._blocks.carried(carried.model_copy(update={"claim": claim}))

    def _note(self, pack: Sequence[Passage], reading: Reading | ReasonedReading) -> Note:
        claim = plain(reading.claim)
        if not reading.found or is_refusal(claim) or not (claim or reading.quotes):
            return Note(found=False)
        note = checked_note(
            [(passage.document, passage.span) for passage in pack],
            found=True,
            quotes=[restored(quote) for quote in reading.quotes[:MAX_QUOTES]],
            claim=claim,
            confidence=round(reading.confidence, 2),
        )
        if note.dropped:
            _log.info("%s: %d quotes that are not in the source were dropped", self._asker.name, note.dropped)
        if note.quotes:
            return note
        if not claim:
            return Note(found=False, dropped=note.dropped)
        return note.model_copy(update={"confidence": min(note.confidence, UNQUOTED_CONFIDENCE)})

    # Merging and answering

    async def merge(self, notes: Sequence[Note], question: str) -> Note:
        """One note with the evidence that the answer needs. No call where at most one note found anything.

        More evidence than the window takes is merged in parts, and the parts again.
        """
        gathered = _together(notes, None)
        evidence = evidence_of(notes)
        if sum(note.found for note in notes) < 2 or not any(one.citation for one in evidence):
            return gathered
        merged = await self._merge(evidence, question)
        return merged.model_copy(update={"dropped": gathered.dropped})

    async def _merge(self, evidence: Sequence[Evidence], question: str) -> Note:
        fixed = {"evidence": "", "question": question}
        parts = self._asker.fitting("merge", Merging, evidence, fixed, self._evidence_block)
        if len(parts) > 1:
            notes = await all_of([self._merge(part, question) for part in parts])
            smaller = evidence_of(notes)
            # Merging that drops nothing would go on for ever.
            return await self._merge(smaller, question) if len(smaller) < len(evidence) else _together(notes, None)
        shown = self._blocks.evidence(evidence)
        try:
            merging = await self._asker.ask("merge", Merging, {"evidence": shown, "question": question})
        except ContextOverflowError:
            if len(evidence) < 2:
                raise
            middle = len(evidence) // 2
            notes = await all_of([self._merge(half, question) for half in (evidence[:middle], evidence[middle:])])
            return _together(notes, None)
        claim = plain(merging.claim)
        if not merging.found or is_refusal(claim):
            return Note(found=False)
        quoted = [one for one in evidence if one.citation]
        kept = [quoted[index] for index in _indices(merging.keep, len(quoted))][:MAX_NOTE_QUOTES]
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

    # Summaries

    async def summarize(self, passages: Sequence[Passage], *, words: int) -> Summary:
        """What the passages say, in order, each point with the quote it rests on, where it has one that was found.

        Passages beyond the window are summarised in parts by length, and the whole shortened to about `words`.
        """
        total = sum(len(passage.span) for passage in passages) or 1

        async def summarize(pack: Sequence[Passage]) -> list[SummaryPoint]:
            share = words * sum(len(passage.span) for passage in pack) / total
            least = min(words, _LEAST_SUMMARY_WORDS)
            fields = {"passages": self._asker.passages(pack), "words": str(max(least, round(share)))}
            summarizing = await self._asker.ask("summarize", Summarizing, fields)
            return [_point(pack, plain(item.text), restored(item.quote)) for item in summarizing.points]

        fixed = {"passages": "", "words": str(words)}
        parts = await self._asker.each_pack("summarize", Summarizing, passages, fixed, summarize)
        points = tuple(point for part in parts for point in part if point.text and not is_refusal(point.text))
        if len(parts) > 1:
            points = await self._condensed(points, words)
        return Summary(points=points)

    def _point_block(self, point: SummaryPoint) -> str:
        return self._blocks.numbered("point", [point.text])

    async def _condensed(self, points: tuple[SummaryPoint, ...], words: int) -> tuple[SummaryPoint, ...]:
        long = Summary(points=points).words
        if long <= _TOO_LONG * words:
            return points
        fixed = {"points": "", "words": str(words)}
        parts = self._asker.fitting("condense", Condensing, points, fixed, self._point_block)

        async def condense(part: Sequence[SummaryPoint]) -> list[SummaryPoint]:
            share = round(words * Summary(points=tuple(part)).words / long)
            fields = {
                "points": self._blocks.numbered("point", (point.text for point in part)),
                "words": str(max(min(words, _LEAST_SUMMARY_WORDS), share)),
            }
            condensing = await self._asker.ask("condense", Condensing, fields)
            return [
                _condensed_point(plain(item.text), [part[index] for index in _indices(item.evidence, len(part))])
                for item in condensing.points
            ]

        shorter = tuple(p for part in await all_of([condense(part) for part in parts]) for p in part if p.text)
        if not shorter:
            _log.warning("%s: shortening left nothing of a summary, so it stays long", self._asker.name)
            return points
        # One more round only if this one got somewhere.
        if len(parts) > 1 and Summary(points=shorter).words < 0.8 * long:
            return await self._condensed(shorter, words)
        return shorter

    # Choosing and judging

    async def choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        """The option most likely to help; None for none. Options and trail too long for the window are shortened."""
        if not options:
            return Choice(option=None, reason="nothing to choose from")
        schema = CHOICES[self._asker.profile]
        fixed = {"options": "", "trail": "", "question": question}
        share = max(
            1, int(self._asker.room("choose", schema, fixed) / (len(options) + len(trail))) - self._asker.block_tokens()
        )
        fields = {
            "options": self._blocks.numbered("option", [shortened(text, share, self._asker.count) for text in options]),
            "trail": self._blocks.read_before([shortened(text, share, self._asker.count) for text in trail]),
            "question": question,
        }
        choosing = await self._asker.ask("choose", schema, fields)
        reason = plain(getattr(choosing, "reason", ""))
        if not 1 <= choosing.option <= len(options):
            return Choice(option=None, reason=reason or "the model chose none of the options")
        return Choice(option=choosing.option - 1, reason=reason, confidence=round(choosing.confidence, 2))

    async def judge(self, question: str, claims: Sequence[Claim], *, passages: Sequence[Passage] = ()) -> Judgement:
        """Which of `claims` the text bears out. One claim: whether its quotes do.

        A claim without quotes can be supported only by `passages`. Those that do not fit the window beside the claims
        are left out, the last first, and the log says so.
        """
        if not claims:
            return Judgement(verdicts=())
        schema = JUDGEMENTS[self._asker.profile]
        shown = self._blocks.claims(claims)
        fixed = {"passages": "", "claims": shown, "question": question}
        packs = self._asker.packed("judge", schema, passages, fixed) if passages else []
        if len(packs) > 1:
            _log.warning("%s: %d passages do not fit beside the claims", self._asker.name, sum(map(len, packs[1:])))
        reread = self._asker.passages(packs[0]) if packs else ""
        judging = await self._asker.ask("judge", schema, {**fixed, "passages": reread})
        supported = set(_indices(judging.supported, len(claims)))
        contradicted = set(_indices(judging.contradicted, len(claims))) - supported

        def verdict(index: int) -> Verdict:
            if index in contradicted:
                return "contradicted"
            return "supported" if index in supported and (claims[index].citations or reread) else "not_shown"

        verdicts = tuple(verdict(index) for index in range(len(claims)))
        best = judging.best - 1
        if not 0 <= best < len(claims) or verdicts[best] != "supported":
            best = verdicts.index("supported") if "supported" in verdicts else -1
        return Judgement(
            verdicts=verdicts,
            best=best if best >= 0 else None,
            reason=plain(getattr(judging, "reason", "")),
            confidence=round(judging.confidence, 2),
        )


def _indices(numbers: Sequence[int], count: int) -> list[int]:
    """The numbers (from 1) that are any, as indices, each once."""
    return [number - 1 for number in dict.fromkeys(numbers) if 1 <= number <= count]


def _together(notes: Sequence[Note], carried: Note | None) -> Note:
    """One note of several that read different passages, and of what was carried in to all of them."""
    dropped = sum(note.dropped for note in notes) + (carried.dropped if carried else 0)
    found = sorted((note for note in notes if note.found), key=lambda note: (not note.quotes, -note.confidence))
    if not found:
        if carried is not None:
            return carried.model_copy(update={"unchanged": True, "dropped": dropped})
        return Note(found=False, dropped=dropped)
    # Of equally sure quotes, each note's strongest come before anybody's second.
    everything = [
        (rank, quote.model_copy(update={"claim": quote.claim or note.claim}))
        for note in ([carried] if carried else []) + found
        for rank, quote in enumerate(note.quotes)
    ]
    quotes: list[Quote] = []
    for _, quote in sorted(everything, key=lambda ranked: (-ranked[1].confidence, ranked[0])):
        if not any(same_evidence(quote.citation, kept.citation) for kept in quotes):
            quotes.append(quote)
    return Note(
        found=True,
        quotes=tuple(quotes[:MAX_NOTE_QUOTES]),
        claim=" ".join(dict.fromkeys(note.claim for note in found if note.claim)),
        confidence=found[0].confidence,
        dropped=dropped,
    )


def _draft(answering: Answering, evidence: Sequence[Evidence], question: str) -> Draft:
    quoted = [one for one in evidence if one.citation]
    claims: list[Claim] = []
    for claim in answering.claims if answering.found else ():
        text = plain(claim.text)
        if not text or is_refusal(text):
            continue
        cited = [quoted[index] for index in _indices(claim.evidence, len(quoted))]
        citations = tuple(one.citation for one in cited if one.citation)
        confidence = max((one.confidence for one in cited), default=UNQUOTED_CONFIDENCE)
        figures: tuple[str, ...] = ()
        if citations:
            figures = unquoted_figures(text, [question, *map(_quoted_words, citations)])
        if figures:
            confidence /= 2
        claims.append(Claim(text=text, citations=citations, confidence=round(confidence, 2), unquoted_figures=figures))
    if not claims:
        return Draft(found=False)
    mean = sum(claim.confidence for claim in claims) / len(claims)
    return Draft(found=True, claims=tuple(claims), confidence=round(mean, 2))


def _quoted_words(citation: Citation) -> str:
    return "\n".join([citation.quote, *citation.headings])


def _point(pack: Sequence[Passage], text: str, quote: str) -> SummaryPoint:
    citation = best_citation([(passage.document, passage.span) for passage in pack], quote) if quote.strip() else None
    if citation is None:
        paths = {passage.heading_path for passage in pack}
        return SummaryPoint(text=text, heading_path=paths.pop() if len(paths) == 1 else ())
    return SummaryPoint(text=text, heading_path=citation.headings, citations=(citation,))


def _condensed_point(text: str, points: Sequence[SummaryPoint]) -> SummaryPoint:
    citations = tuple(dict.fromkeys(citation for point in points for citation in point.citations))
    paths = {point.heading_path for point in points}
    return SummaryPoint(text=text, heading_path=paths.pop() if len(paths) == 1 else (), citations=citations)
