"""Whether the words quoted for an item name it: code's check before a thing is counted.

A reader may quote a sentence that stands in the source and shows nothing of the kind. What identifies an item, its
figures and its name, has to stand in the quote, in a sentence right beside it, or in a title above it.
"""

from __future__ import annotations

from lcdoc.agents.folding import fold
from lcdoc.agents.items import Item, kind_of_thing, name_words
from lcdoc.agents.prompts.checks import unquoted_figures
from lcdoc.agents.quotes import Citation
from lcdoc.agents.stems import STOP_WORDS, stem, tokens_of
from lcdoc.documents import Document
from lcdoc.retrieval.sentences import sentence_spans

_NAME_SHARE = 0.5
"""Of a name's words, more than this share has to stand there."""
_BESIDE_CHARACTERS = 400
"""Before and after a quote, in which the sentences beside it are looked for."""
_PREFIX_CHARACTERS = 4
"""The least that two forms of a word have in common where one begins with the other, as in compounds."""


def is_named(item: Item, document: Document, question: str) -> bool:
    """Whether the first citation of `item`, which is in `document`, names it.

    All figures of its name have to stand there, and most of its other words, but for those of `question` that say what
    kind of thing is listed. Words are compared by their stems; a number in words is its figures.
    """
    citation = item.citations[0]
    shown = "\n".join([citation.quote, *_beside(citation, document), *citation.headings])
    if fold(item.name) in fold(shown):
        return True
    if unquoted_figures(item.name, [shown]):
        return False
    there = tokens_of(shown)
    given = [token for token in tokens_of(item.name) if token not in STOP_WORDS]
    single = {token for token in given if len(token) == 1 and token.isdigit()}
    if not single <= {*there, *(_DIGITS[token] for token in there if token in _DIGITS)}:
        return False
    words = [word for word in name_words(item.name, kind_of_thing(question)) if not word[0].isdigit()]
    if not words:
        return any(token[0].isdigit() for token in given)
    stems = set(map(stem, there))
    return sum(_stands(word, stems) for word in words) > _NAME_SHARE * len(words)


_DIGITS = {
    word: str(number)
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), 1)
}


def _beside(citation: Citation, document: Document) -> list[str]:
    """The sentences right before and right after a quote, or as much of them as stands close by."""
    body, span = document.body, citation.span
    before = sentence_spans(body, max(0, span.start - _BESIDE_CHARACTERS), span.start)
    after = sentence_spans(body, span.end, span.end + _BESIDE_CHARACTERS)
    # A quote that ends within its sentence leaves the rest of it to be the first.
    return [one.of(body) for one in (*before[-1:], *after[:1])]


def _stands(word: str, stems: set[str]) -> bool:
    if word in stems:
        return True
    return len(word) >= _PREFIX_CHARACTERS and any(
        len(other) >= _PREFIX_CHARACTERS and (other.startswith(word) or word.startswith(other)) for other in stems
    )
