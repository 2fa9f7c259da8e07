"""Answers to "how many" and "which": the items that were listed, each once with its citations, and their number.

The number is computed here. What the text itself states as the number is answered like any other question, and stands
before what was counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lcdoc.agents.items import Item, Listing, distinct
from lcdoc.agents.listing_questions import Language, listing_question
from lcdoc.agents.notes import Claim, Draft
from lcdoc.agents.prompts.checks import unquoted_figures
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
_SENTENCES: Mapping[Language, str] = {
    "en": "{n} sentences speak of it",
    "de": "{n} Sätze sprechen davon",
    "fr": "{n} phrases en parlent",
}

SENTENCES_WARNING = (
    "without a language model the sentences that match are listed and counted, not the things they speak of"
)


def counted(question: str, listings: Sequence[Listing], stated: Draft, *, complete: bool, things: bool) -> Draft:
    """The draft made of `listings`, in the order of the documents, and of what the text states.

    `complete`: everything was read, so that the number is that of all. `things`: readers told things apart; else the
    items are sentences.
    """
    items = distinct(listings, question)
    # Sentences beside the one that states the number add nothing to it.
    if not items or (stated.found and not (things and _are_counted(question, stated, items))):
        return stated
    confidence = min(item.confidence for item in items)
    total = Claim(
        text=_total(question, items, stated=stated.found, complete=complete, things=things),
        citations=tuple(item.citations[0] for item in items),
        confidence=round(confidence if complete and things else confidence / 2, 2),
    )
    claims = [_claim(question, item) for item in items[:MOST_CLAIMS]]
    # One thing needs no number.
    together = claims if len(items) == 1 and complete and not stated.found else [total, *claims]
    confidences = [claim.confidence for claim in (*stated.claims, *claims)]
    return Draft(
        found=True,
        claims=(*stated.claims, *together),
        confidence=round(sum(confidences) / len(confidences), 2),
    )


def _are_counted(question: str, stated: Draft, items: Sequence[Item]) -> bool:
    """Whether the items may be what the stated number counts: of "74 passengers" a single name is none."""
    figures = figures_in(stated.claims[0].text) - figures_in(question)
    numbers = [int(figure) for figure in figures if figure.isdecimal()]
    return not numbers or len(items) >= _SHARE_OF_STATED * min(numbers)


def _total(question: str, items: Sequence[Item], *, stated: bool, complete: bool, things: bool) -> str:
    wanted = listing_question(question)
    language: Language = wanted.language if wanted else "en"
    if not things:
        return f"{_SENTENCES[language].format(n=len(items))}."
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
