"""Passages, notes and evidence as blocks of data, the way prompts show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lcdoc.agents.notes import Claim, Note
from lcdoc.agents.prompts.evidence import Evidence, conclusions
from lcdoc.agents.prompts.fence import Fence
from lcdoc.agents.prompts.kept import Kept
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document

_MOST_CHARACTERS = 16_000_000
"""Of the blocks of passages that are kept: a passage is shown to one call, and counted before."""


class Blocks:
    """Makes the blocks of one reader. Knows the names of the documents it was told of or showed passages of."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._names: dict[str, str] = {}
        self._passages: Kept[tuple[object, ...], str] = Kept(_MOST_CHARACTERS)

    def introduce(self, document: Document) -> None:
        """Name the document in blocks of evidence, also where none of its passages is shown."""
        self._names[document.id] = document.name

    def passage(self, passage: Passage) -> str:
        """A passage under the name of its document and the titles of its sections."""
        document = passage.document
        self.introduce(document)
        header = {"document": document.name, "section": " > ".join(passage.heading_path)}
        return self._passages.get(
            (document.id, document.name, passage.span, passage.heading_path),
            lambda: self._fence.wrap(passage.text, header),
            characters=len(passage.span),
        )

    def carried(self, note: Note | None) -> str:
        """The notes so far; empty where there are none."""
        if note is None or not note.found:
            return ""
        return self._fence.wrap(
            "\n".join([note.claim, *(f'quote: "{quote.citation.quote}"' for quote in note.quotes)]),
            {"notes so far": "what earlier parts of the documents say"},
        )

    def evidence(self, evidence: Sequence[Evidence]) -> str:
        """Numbered quotes, each with its place and how sure its reader was; conclusions and remarks have no number.

        A conclusion stands whole, and once, behind the last of the quotes that it names.
        """
        blocks: list[str] = []
        number = 0
        concluded = conclusions(evidence)
        for one in evidence:
            if one.citation is None:
                blocks.append(self._fence.wrap(one.claim, {"remark": "has no quote of its own"}))
                continue
            number += 1
            header = {"evidence": str(number), **self._place(one.citation), "confidence": f"{one.confidence:g} of 5"}
            blocks.append(self._fence.wrap(f'quote: "{one.citation.quote}"', header))
            blocks += [
                self.conclusion(claim, concluded[claim])
                for claim in one.claims
                if claim in concluded and concluded[claim][-1] == number
            ]
        return "\n\n".join(blocks)

    def conclusion(self, claim: str, numbers: Sequence[int]) -> str:
        """What was concluded from the quotes of these numbers."""
        return self._fence.wrap(claim, {"concluded from evidence": ", ".join(map(str, numbers))})

    def claims(self, claims: Sequence[Claim]) -> str:
        """Numbered claims, each with its quotes."""
        return "\n\n".join(self.claim(number, claim) for number, claim in enumerate(claims, 1))

    def claim(self, number: int, claim: Claim) -> str:
        quotes = [f'quote: "{citation.quote}"' for citation in claim.citations] or ["no quote"]
        return self._fence.wrap("\n".join([claim.text, *quotes]), {"claim": str(number)})

    def numbered(self, kind: str, texts: Iterable[str]) -> str:
        """Texts of one kind (`option`, `point`), each under its number."""
        return "\n\n".join(self._fence.wrap(text, {kind: str(number)}) for number, text in enumerate(texts, 1))

    def read_before(self, texts: Sequence[str]) -> str:
        """What was read on the way here; empty where nothing was."""
        header = {"already read": "not an option"}
        return "\n\n".join(self._fence.wrap(text, header) for text in texts)

    def _place(self, citation: Citation) -> Mapping[str, str]:
        place = {"document": self._names.get(citation.document_id, "")}
        if citation.labels:
            place["page"] = "-".join(dict.fromkeys((citation.labels[0], citation.labels[-1])))
        if citation.headings:
            place["section"] = " > ".join(citation.headings)
        return place
