"""Answers to "how many" and "which": the items that were listed, each once with its citations, and their number.

The number is computed here, of the items that the words quoted for them name; others are told in a warning, by name and
page. What the text itself states as the number is answered like any other question, and stands before what was counted.
Sentences, which is what is listed without a language model, are not counted: the best of them are the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from operator import not_

from lcdoc.agents.item_evidence import is_named
from lcdoc.agents.items import Item, Listing, distinct
from lcdoc.agents.listing_questions import Language, listing_question
from lcdoc.agents.notes import Claim, Draft
from lcdoc.agents.prompts.checks import unquoted_figures
from lcdoc.agents.stems import stems_of
from lcdoc.documents import Document
from lcdoc.workflows.sides import figures_in

MOST_CLAIMS = 300
"""Items that are shown as claims of their own; the number is that of all."""
_SHARE_OF_STATED = 0.5
"""Of a stated number, how many items have to be named to be shown as what it counts."""
_NAMES_CHARACTERS = 400
"""Of names after the number; more are in the claims that follow anyway."""

_IN_ALL: Mapping[Language, str] = {"en": "{n} in all", "de": "Insgesamt {n}", "fr": "{n} en tout"}
_AT_LEAST: Mapping[Language, str] = {"en": "At least {n}", "de": "Mindestens {n}", "fr": "Au moins {n}"}
_NAMED: Mapping[Language, str] = {"en": "Named in the text: {n}", "de": "Im Text genannt: {n}", "fr": "Nommés : {n}"}
MOST_SENTENCES = 12
"""Sentences that are shown where things are not told apart."""
_MOST_DOUBTFUL = 8
"""Things left out of the count that a warning names."""
_ALIKE = 0.7
"""From which two sentences say the same, as the share of common words."""

SENTENCES_WARNING = "without a language model these are sentences that name such things, not a list of the things"


def counted(
    question: str,
    listings: Sequence[Listing],
    stated: Draft,
    documents: Mapping[str, Document],
    *,
    complete: bool,
    things: bool,
) -> Draft:
    """The draft made of `listings`, in the order of the documents, and of what the text states.

    `documents` are those cited, by id. `complete`: everything was read, so that the number is that of all. `things`:
    readers told things apart; else the items are sentences.
    """
    if not things:
        return _sentences(question, listings, stated)
    items, _ = _told_apart(question, listings, documents)
    if not items or (stated.found and not _are_counted(question, stated, items)):
        return stated
    confidence = min(item.confidence for item in items)
    total = Claim(
        text=_total(question, items, stated=stated.found, complete=complete),
        citations=tuple(item.citations[0] for item in items),
        confidence=round(confidence if complete else confidence / 2, 2),
    )
    claims = [_claim(question, item) for item in items[:MOST_CLAIMS]]
    # One thing needs no number.
    together = claims if len(items) == 1 and complete and not stated.found else [total, *claims]
    return _draft([*stated.claims, *together], [*stated.claims, *claims])


def listing_warning(
    question: str, listings: Sequence[Listing], documents: Mapping[str, Document], *, things: bool
) -> str | None:
    """What the user has to know of a list made of `listings`; None where there is nothing."""
    if not things:
        if any(one.stated for one in listings) or not any(one.items for one in listings):
            return None
        _, left_out = _best_sentences(question, listings)
        more = f"; {left_out} more sentence{'s' * (left_out != 1)} matched less well" if left_out else ""
        return f"{SENTENCES_WARNING}{more}"
    _, doubtful = _told_apart(question, listings, documents)
    if not doubtful:
        return None
    named = ", ".join(f"{item.name} (page {item.citations[0].pages[0]})" for item in doubtful[:_MOST_DOUBTFUL])
    more = f" and {len(doubtful) - _MOST_DOUBTFUL} more" if len(doubtful) > _MOST_DOUBTFUL else ""
    return f"left out of the list, since the words quoted for them do not name them: {named}{more}"


def _told_apart(
    question: str, listings: Sequence[Listing], documents: Mapping[str, Document]
) -> tuple[list[Item], list[Item]]:
    """The things that their quotes name, each once, and those that no quote names."""
    named: list[Listing] = []
    doubtful: list[Listing] = []
    for listing in listings:
        good = [is_named(one, documents[one.citations[0].document_id], question) for one in listing.items]
        named.append(replace(listing, items=tuple(compress(listing.items, good))))
        doubtful.append(replace(listing, items=tuple(compress(listing.items, map(not_, good)))))
    items = distinct(named, question)
    # What one quote names and another does not, is named: only things that come after all of those are left over.
    return items, distinct([*named, *doubtful], question)[len(items) :]


def _sentences(question: str, listings: Sequence[Listing], stated: Draft) -> Draft:
    if stated.found:
        # Sentences beside the one that states the number add nothing to it.
        return stated
    claims = [_claim(question, item) for item in _best_sentences(question, listings)[0]]
    return _draft(claims, claims) if claims else stated


def _best_sentences(question: str, listings: Sequence[Listing]) -> tuple[list[Item], int]:
    """The surest sentences, in the order of the documents, and the number of those left out; no two say the same."""
    items = distinct(listings, question)
    kept: list[int] = []
    for index in sorted(range(len(items)), key=lambda index: -items[index].confidence):
        if not any(_say_the_same(items[index].name, items[one].name) for one in kept):
            kept.append(index)
    return [items[index] for index in sorted(kept[:MOST_SENTENCES])], len(kept[MOST_SENTENCES:])


def _say_the_same(one: str, other: str) -> bool:
    """Whether two sentences have most words in common, and neither a name or figure that the other has not."""
    words, others = set(stems_of(one)), set(stems_of(other))
    marks, other_marks = (
        {s for word in text.split() if not word.islower() for s in stems_of(word)} for text in (one, other)
    )
    if not (marks <= other_marks or other_marks <= marks):
        return False
    return len(words & others) >= _ALIKE * min(len(words), len(others))


def _draft(claims: Sequence[Claim], rated: Sequence[Claim]) -> Draft:
    confidence = round(sum(claim.confidence for claim in rated) / len(rated), 2)
    return Draft(found=True, claims=tuple(claims), confidence=confidence)


def _are_counted(question: str, stated: Draft, items: Sequence[Item]) -> bool:
    """Whether the items may be what the stated number counts: of "74 passengers" a single name is none."""
    figures = figures_in(stated.claims[0].text) - figures_in(question)
    numbers = [int(figure) for figure in figures if figure.isdecimal()]
    return not numbers or len(items) >= _SHARE_OF_STATED * min(numbers)


def _total(question: str, items: Sequence[Item], *, stated: bool, complete: bool) -> str:
    wanted = listing_question(question)
    language: Language = wanted.language if wanted else "en"
    words = _NAMED if stated else _IN_ALL if complete else _AT_LEAST
    total = words[language].format(n=len(items))
    names = ", ".join(item.name for item in items)
    return f"{total}: {names}." if len(names) <= _NAMES_CHARACTERS else f"{total}."


def _claim(question: str, item: Item) -> Claim:
    quoted = ["\n".join([citation.quote, *citation.headings]) for citation in item.citations]
    return Claim(
        text=item.text,
        citations=item.citations,
        confidence=item.confidence,
        unquoted_figures=unquoted_figures(item.text, [question, *quoted]),
    )
