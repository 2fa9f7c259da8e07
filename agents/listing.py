"""Listing: the skill of reading out every thing of a kind that passages name, or the number that they state.

Nobody counts here: readers list, code counts (`items.distinct`). It stands beside the readers, since few questions ask
for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from pydantic import BaseModel, Field

from lcdoc.agents.answer_offers import offer
from lcdoc.agents.claims import claim_of
from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.evidence_weights import FOUND_THRESHOLD
from lcdoc.agents.items import Item, Listing, item
from lcdoc.agents.listing_questions import listing_question
from lcdoc.agents.models.errors import InvalidOutputError
from lcdoc.agents.models.model import Profile
from lcdoc.agents.naming import Naming, is_heading
from lcdoc.agents.notes import best_citation
from lcdoc.agents.offline_reader import OfflineReader, quotable
from lcdoc.agents.packing import halves
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.prompts.asker import LEAST_ROOM_TOKENS, Asker, all_of
from lcdoc.agents.prompts.checks import is_refusal, plain
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.schemas import Rating
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import check_quote
from lcdoc.agents.reader import Passage, Reader
from lcdoc.agents.stems import stems_of

MAX_ITEMS = 300
"""Items taken from one answer of a model."""
MAX_SENTENCES = 20
"""Sentences that an offline reader lists from one reading."""
_NAME_CHARACTERS = 200
_HEADER_TOKENS = 160
"""For the fence, name and headings around a piece of a document."""
_HALVINGS = 2
"""How often passages whose list did not fit into an answer are parted."""
_NUMBER_REACH = 8
"""Words after a number among which what is counted is looked for."""

_log = logging.getLogger(__name__)


class NamedItem(BaseModel):
    """A thing that passages name."""

    name: str = Field(description="what it is called")
    quote: str = Field(description="words copied exactly from the passages that show it")


class DetailedItem(BaseModel):
    """A thing that passages name, with what is asked about it."""

    name: str = Field(description="what it is called")
    detail: str = Field(default="", description="what the question wants to know of it beyond its name")
    quote: str = Field(description="words copied exactly from the passages that show it")


class ItemListing(BaseModel):
    """Which things passages name, or which number they state."""

    found: bool = Field(description="whether the passages state the number or name such a thing")
    stated: str = Field(default="", description="the number asked for, where it is stated, in a sentence")
    stated_quote: str = Field(default="", description="words copied exactly from the passages that state it")
    items: list[NamedItem] = Field(default_factory=list, description="the things, each once")
    confidence: Rating


class DetailedListing(BaseModel):
    """Which things passages name and what is asked about each, or which number they state."""

    found: bool = Field(description="whether the passages state the number or name such a thing")
    stated: str = Field(default="", description="the number asked for, where it is stated, in a sentence")
    stated_quote: str = Field(default="", description="words copied exactly from the passages that state it")
    items: list[DetailedItem] = Field(default_factory=list, description="the things, each once")
    confidence: Rating


LISTINGS: dict[Profile, type[ItemListing | DetailedListing]] = {"small": ItemListing, "large": DetailedListing}


async def list_items(reader: Reader, passages: Sequence[Passage], question: str) -> Listing:
    """What `passages` name, or state, of what `question` asks for; every quote checked.

    A reader that has no such skill gives its quotes for items. Raises what the reader raises.
    """
    if not passages:
        return Listing()
    if isinstance(reader, PromptedReader):
        return await prompted_listing(reader.asker, passages, question)
    if isinstance(reader, OfflineReader):
        return await asyncio.to_thread(extracted_listing, reader, passages, question)
    note = await reader.read_many(passages, question)
    items = [item(q.claim or note.claim, q.citation, confidence=q.confidence) for q in note.quotes if note.found]
    return Listing(tuple(items), confidence=note.confidence, dropped=note.dropped)


def listing_room(reader: Reader, question: str) -> int:
    """Tokens of text that one listing takes. Raises ModelConfigError where it is less than a sentence."""
    if not isinstance(reader, PromptedReader):
        return reader.room(question)
    fixed = {"passages": "", "question": question}
    room = reader.asker.room("list", LISTINGS[reader.asker.profile], fixed, any_question=reader.keeps)
    return max(LEAST_ROOM_TOKENS, room - _HEADER_TOKENS)


# Through a model


async def prompted_listing(asker: Asker, passages: Sequence[Passage], question: str) -> Listing:
    """The listing of a model, in as few calls as the window takes; passages whose list is too long are parted.

    Items and statements whose quotes are not in the source are dropped and counted. Raises ModelError.
    """
    schema = LISTINGS[asker.profile]

    async def ask(pack: Sequence[Passage], halvings: int = _HALVINGS) -> Listing:
        try:
            answered = await asker.ask(
                "list", schema, {"passages": asker.passages(pack), "question": question}, piece=pack
            )
        except InvalidOutputError:
            parts = halves(pack) if halvings else None
            if parts is None:
                raise
            _log.info("%s: no list came of some passages, so they are listed in two parts", asker.name)
            return _joined(await all_of([ask(part, halvings - 1) for part in parts]))
        return _checked(asker.name, pack, answered)

    fixed = {"passages": "", "question": question}
    return _joined(await asker.each_pack("list", schema, passages, fixed, ask))


def _checked(model: str, pack: Sequence[Passage], answered: ItemListing | DetailedListing) -> Listing:
    if not answered.found:
        return Listing()
    places = [(passage.document, passage.span) for passage in pack]
    confidence = round(answered.confidence, 2)
    items: list[Item] = []
    dropped = 0
    for one in answered.items[:MAX_ITEMS]:
        name = plain(one.name)[:_NAME_CHARACTERS]
        if is_refusal(name):
            continue
        citation = best_citation(places, restored(one.quote))
        if citation is None:
            dropped += 1
            continue
        items.append(item(name, citation, detail=plain(getattr(one, "detail", "")), confidence=confidence))
    stated, stated_citation = plain(answered.stated), None
    if stated and not is_refusal(stated):
        stated_citation = best_citation(places, restored(answered.stated_quote))
        dropped += stated_citation is None
    if dropped:
        _log.info("%s: %d quotes that are not in the source were dropped", model, dropped)
    return Listing(tuple(items), stated if stated_citation else "", stated_citation, confidence, dropped)


def _joined(listings: Sequence[Listing]) -> Listing:
    """One listing of several that read different passages; of several statements the surest."""
    stating = max((one for one in listings if one.stated), key=lambda one: one.confidence, default=None)
    return Listing(
        items=tuple(one for listing in listings for one in listing.items),
        stated=stating.stated if stating else "",
        stated_citation=stating.stated_citation if stating else None,
        confidence=stating.confidence if stating else max((one.confidence for one in listings), default=0.0),
        dropped=sum(listing.dropped for listing in listings),
    )


# Without a model


def extracted_listing(reader: OfflineReader, passages: Sequence[Passage], question: str) -> Listing:
    """The sentences that name such things (`Naming`), each an item; or the one that has the number asked for.

    It tells sentences apart, not things: what is named twice in different words is there twice. Raises what the
    embedder raises.
    """
    asked = Question.of(question)
    ranking = rank_evidence(asked, passages, reader.embedder)
    if ranking.relevance < FOUND_THRESHOLD:
        return Listing(confidence=round(5 * ranking.confidence, 2))
    wanting = listing_question(question)
    sure = round(5 * ranking.confidence, 2)
    best = next((one for one in ranking.evidence if not is_heading(one.candidate)), ranking.evidence[0])
    counts = wanting is not None and wanting.counts and not is_heading(best.candidate)
    if counts and states_number(asked, best.candidate.raw, row=best.candidate.is_row):
        document = passages[best.candidate.passage].document
        text, near = quotable(document, best.candidate)
        citation = check_quote(document, text, near=near)
        if citation is not None:
            return Listing(stated=claim_of(citation.quote, asked), stated_citation=citation, confidence=sure)
    items: list[tuple[int, Item]] = []
    dropped = 0
    naming = Naming.of(asked, [passage.text for passage in passages])
    for evidence in ranking.evidence[:MAX_SENTENCES]:
        candidate = evidence.candidate
        share = naming.share(candidate)
        if share is None:
            continue
        document = passages[candidate.passage].document
        text, near = quotable(document, candidate)
        citation = check_quote(document, text, near=near)
        if citation is None:
            dropped += 1
            continue
        confidence = round(sure * share, 2)
        items.append((near.start, item(claim_of(citation.quote, asked), citation, confidence=confidence)))
    in_order = tuple(one for _, one in sorted(items, key=lambda placed: placed[0]))
    return Listing(in_order, confidence=sure, dropped=dropped)


def states_number(asked: Question, sentence: str, *, row: bool) -> bool:
    """Whether `sentence` gives a number, not the question's, of what is counted (or is a row of figures about it)."""
    at = offer("number", sentence, asked.known).at
    if at is None:
        return False
    if row or not asked.counted:
        return True
    after = stems_of(sentence[at[1] :])[:_NUMBER_REACH]
    return not asked.counted.isdisjoint(after)


def tells_things_apart(reader: Reader) -> bool:
    """Whether `reader` names the things it lists; else its items are sentences."""
    return isinstance(reader, PromptedReader)
