"""Reading through a language model: what passages add to a question, with quotes that were checked on arrival."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Note, Quote, checked_note, same_evidence
from lcdoc.agents.packing import shortened
from lcdoc.agents.prompted_skill import UNQUOTED_CONFIDENCE, PromptedSkill
from lcdoc.agents.prompts.asker import LEAST_ROOM_TOKENS
from lcdoc.agents.prompts.checks import is_refusal, plain
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.schemas import READINGS, Reading, ReasonedReading
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document

MAX_QUOTES = 8
"""Quotes taken from one reading."""
MAX_NOTE_QUOTES = 16
"""Quotes of a note that several readings were put together to; the strongest stay."""
_HEADER_TOKENS = 160
"""For the fence, name and headings around a piece of a document; `parts` cuts a piece that has longer ones."""
_CARRIED_SHARE = 0.2
"""Of the room for text, what the carried note may take."""

_log = logging.getLogger(__name__)


class PromptedReading(PromptedSkill):
    """Reads passages, with or without a note carried in."""

    @property
    def _reading(self) -> type[Reading | ReasonedReading]:
        return READINGS[self._asker.profile]

    async def read(self, passage: Passage, question: str, carried: Note | None = None) -> Note:
        """What `passage` adds to the question: see `read_many`."""
        return await self._read([passage], question, carried, piece=True)

    async def read_many(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> Note:
        """What all `passages` together add to the question, in as few calls as fit the window, made at once.

        The quotes of `carried` and of every reading are kept, the strongest `MAX_NOTE_QUOTES`. Quotes that are not in
        the source are dropped and counted. A claim of which no quote is left stays, as unsupported, with a confidence
        of at most `UNQUOTED_CONFIDENCE`. With nothing to add, `carried` comes back with `unchanged` set.
        """
        return await self._read(passages, question, carried, piece=False)

    async def _read(self, passages: Sequence[Passage], question: str, carried: Note | None, *, piece: bool) -> Note:
        """`piece`: the passages were not chosen for the question."""
        shown = self._carried(carried, question)

        async def read(pack: Sequence[Passage]) -> Note:
            fields = {"passages": self._asker.passages(pack), "carried": shown, "question": question}
            reading = await self._asker.ask("read", self._reading, fields, piece=pack if piece else ())
            return self._note(pack, reading)

        fixed = {"passages": "", "carried": shown, "question": question}
        notes = await self._asker.each_pack("read", self._reading, passages, fixed, read)
        return gathered(notes, carried)

    def introduce(self, documents: Sequence[Document]) -> None:
        """Make the documents' names known, which evidence is shown with."""
        for document in documents:
            self._blocks.introduce(document)

    def count(self, text: str) -> int:
        """Tokens of document text as it is sent; errs high where the model's tokenizer is not at hand."""
        return self._asker.count(text)

    def room(self, question: str, *, carrying: bool = False) -> int:
        """Tokens of text that one call takes, beside the note carried in at its longest if `carrying`.

        Raises ModelConfigError where it is less than a sentence.
        """
        fixed = {"passages": "", "carried": "", "question": question}
        room = self._asker.room("read", self._reading, fixed, any_question=self.keeps)
        if carrying:
            room -= int(room * _CARRIED_SHARE)
        return max(LEAST_ROOM_TOKENS, room - _HEADER_TOKENS)

    @property
    def keeps(self) -> bool:
        """Whether the model may keep what it reads: it runs here."""
        return self._asker.runs_here

    def parts(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> list[Sequence[Passage]]:
        """The packs of `passages` that `read_many` would read, a call each.

        Raises ModelConfigError where the window has no room for a sentence.
        """
        fixed = {"passages": "", "carried": self._carried(carried, question), "question": question}
        return [*self._asker.packed("read", self._reading, passages, fixed)] if passages else []

    def requests(self, passage: Passage, question: str) -> list[Request]:
        """What `read` would send with nothing carried: a request for each part that `passage` has to be cut into."""
        return [
            self._asker.request(
                "read",
                self._reading,
                {"passages": self._asker.passages(part), "carried": "", "question": question},
                piece=part,
            )
            for part in self.parts([passage], question)
        ]

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


def gathered(notes: Sequence[Note], carried: Note | None) -> Note:
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
