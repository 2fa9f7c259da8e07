"""Things that documents name one by one: read from passages, each with its checked quote, and each counted once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lcdoc.agents.folding import fold
from lcdoc.agents.notes import Note, Quote, same_evidence
from lcdoc.agents.quotes import Citation
from lcdoc.agents.stems import STOP_WORDS, stem, stems_of, tokens_of

_BETWEEN = " — "
"""Between the name and the detail of an item, in words."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing, with the words of the source that show it."""

    name: str
    citations: tuple[Citation, ...]
    detail: str = ""
    """What the question wants to know of it beyond its name."""
    confidence: float = 0.0

    @property
    def text(self) -> str:
        return f"{self.name}{_BETWEEN}{self.detail}" if self.detail else self.name


@dataclass(frozen=True, slots=True)
class Listing:
    """What one reading yields for a question about how many things there are, or which.

    The number itself where the text states it (`stated`, never without its quote), things that it names, or both.
    """

    items: tuple[Item, ...] = ()
    stated: str = ""
    stated_citation: Citation | None = None
    confidence: float = 0.0
    dropped: int = 0
    """Quotes that the reader gave and the source does not have; their items are gone with them."""

    def as_note(self) -> Note:
        """The listing as a note, for the notebook: `Listing.of` gives it back. `claim` is what is stated."""
        quotes = [
            Quote(text=citation.quote, citation=citation, claim=item.text, confidence=item.confidence)
            for item in self.items
            for citation in item.citations[:1]
        ]
        if self.stated_citation is not None:
            stated = self.stated_citation
            quotes.insert(0, Quote(text=stated.quote, citation=stated, confidence=self.confidence))
        return Note(
            found=bool(quotes),
            quotes=tuple(quotes),
            claim=self.stated,
            confidence=self.confidence,
            dropped=self.dropped,
        )

    @classmethod
    def of(cls, note: Note) -> Listing:
        """The listing that `as_note` made this note of."""
        first = note.quotes[0] if note.claim and note.quotes else None
        items = note.quotes[1:] if first else note.quotes
        return cls(
            items=tuple(_item(quote) for quote in items),
            stated=note.claim if first else "",
            stated_citation=first.citation if first else None,
            confidence=note.confidence,
            dropped=note.dropped,
        )

    def stated_note(self) -> Note:
        """What is stated, alone, as any reading would note it; found nothing where nothing is."""
        return replace(self, items=(), dropped=0).as_note()


def _item(quote: Quote) -> Item:
    name, _, detail = quote.claim.partition(_BETWEEN)
    return Item(name or quote.citation.quote, (quote.citation,), detail, quote.confidence)


def item(name: str, citation: Citation, *, detail: str = "", confidence: float = 0.0) -> Item:
    """An item as a reader gives it; one without a name is called by its quote."""
    name = name.replace(_BETWEEN, " - ") or citation.quote
    return Item(name, (citation,), "" if detail == name else detail, confidence)


def distinct(listings: Sequence[Listing], question: str) -> list[Item]:
    """The items of all listings, in order, each once, with the citations of all its mentions.

    Two are one when their names have the same words, whatever their order, articles, inflection and the words of the
    question for that kind of thing ("the ferry Bittern" among ferries is "Bittern"); and when different readings rest
    them on the same words of the source and one name has all the words of the other.
    """
    kind = kind_of_thing(question)
    kept: list[_Kept] = []
    by_words: dict[frozenset[str], _Kept] = {}
    by_page: dict[tuple[str, int], list[_Kept]] = {}
    for reading, listing in enumerate(listings):
        for one in listing.items:
            words = name_words(one.name, kind)
            places = [(citation.document_id, page) for citation in one.citations for page in citation.pages]
            nearby = (other for place in places for other in by_page.get(place, ()))
            same = by_words.get(words) or next((other for other in nearby if other.is_also(one, words, reading)), None)
            if same is None:
                same = _Kept(one, words, {reading})
                kept.append(same)
            else:
                same.add(one, reading)
            by_words.setdefault(words, same)
            for place in places:
                by_page.setdefault(place, []).append(same)
    return [one.item for one in kept]


@dataclass(slots=True, eq=False)
class _Kept:
    item: Item
    words: frozenset[str]
    readings: set[int]

    def is_also(self, other: Item, words: frozenset[str], reading: int) -> bool:
        """Whether another reading gave this item another name: of what one reading tells apart, nothing is joined."""
        if reading in self.readings or not (words <= self.words or self.words <= words):
            return False
        if _numbers(words) != _numbers(self.words):
            return False
        return any(same_evidence(a, b) for a in self.item.citations for b in other.citations)

    def add(self, other: Item, reading: int) -> None:
        self.readings.add(reading)
        mine = self.item
        fresh = tuple(c for c in other.citations if not any(same_evidence(c, known) for known in mine.citations))
        self.item = replace(
            mine,
            citations=mine.citations + fresh,
            detail=mine.detail or other.detail,
            confidence=max(mine.confidence, other.confidence),
        )


def kind_of_thing(question: str) -> frozenset[str]:
    """Stems of the question's words in small letters: what kind of thing is listed, no names."""
    words = (word for word in question.split() if word.islower())
    return frozenset(s for word in words for s in stems_of(word))


def name_words(name: str, kind: frozenset[str]) -> frozenset[str]:
    """Stems of the words that tell a name from others of its kind; those of the kind where it has no others."""
    stems = dict(_stemmed(name))
    bare = frozenset(s for s, given in stems.items() if not (s in kind and given.islower()))
    return bare or frozenset(stems) or frozenset({fold(name)})


def _stemmed(name: str) -> Iterator[tuple[str, str]]:
    """The stem of each word that means something, with the word as it is written."""
    for word in name.split():
        for token in tokens_of(word):
            if token not in STOP_WORDS:
                yield stem(token), word


def _numbers(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if word[0].isdigit() or _ROMAN.issuperset(word))


_ROMAN = frozenset("ivx")
