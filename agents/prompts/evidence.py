"""Evidence for a merge or an answer: checked quotes, each once, with what readers concluded from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lcdoc.agents.notes import Note, same_evidence
from lcdoc.agents.quotes import Citation


@dataclass(frozen=True, slots=True)
class Evidence:
    """A checked quote with what was concluded from it, alone or with others; without a citation, a mere remark."""

    claims: tuple[str, ...]
    confidence: float
    citation: Citation | None = None

    @property
    def claim(self) -> str:
        return " ".join(self.claims)


def evidence_of(notes: Sequence[Note]) -> list[Evidence]:
    """The quotes of all notes, each once, in the notes' order; and what notes conclude beyond their single quotes.

    A quote that several notes have has the claims of all of them.
    """
    found: list[Evidence] = []
    for note in notes:
        if not note.found:
            continue
        beyond = note.claim
        for quote in note.quotes:
            concluded = quote.claim or note.claim
            beyond = beyond.replace(concluded, "") if concluded else beyond
            claims = (concluded,) if concluded else ()
            index = next((i for i, one in enumerate(found) if _same(quote.citation, one)), None)
            if index is None:
                found.append(Evidence(claims, quote.confidence, quote.citation))
            else:
                found[index] = replace(found[index], claims=tuple(dict.fromkeys((*found[index].claims, *claims))))
        if beyond.strip():
            found.append(Evidence((beyond.strip(),), note.confidence))
    return found


def conclusions(evidence: Sequence[Evidence]) -> dict[str, list[int]]:
    """What was concluded from quotes, with the numbers (from 1) of those quotes; nothing that only repeats one."""
    numbers: dict[str, list[int]] = {}
    repeating: set[str] = set()
    quoted = [(one.claims, " ".join(one.citation.quote.split())) for one in evidence if one.citation]
    for number, (claims, words) in enumerate(quoted, 1):
        for claim in claims:
            numbers.setdefault(claim, []).append(number)
            if " ".join(claim.split()) in words:
                repeating.add(claim)
    return {claim: of for claim, of in numbers.items() if claim not in repeating}


def _same(citation: Citation, one: Evidence) -> bool:
    return one.citation is not None and same_evidence(citation, one.citation)
