"""A reader: the skills that workflows are made of, whatever stands behind them (a language model, or none)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lcdoc.agents.models.model import OnText, Request
from lcdoc.agents.notes import Choice, Claim, Draft, Judgement, Note, Summary, SummaryPoint
from lcdoc.documents import Document, Span
from lcdoc.retrieval.passages import Chunk, Hit


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of a document, handed to a reader with the titles of the sections it lies in (outermost first).

    `cosine` is its similarity to the question, where a search computed it.
    """

    document: Document
    span: Span
    heading_path: tuple[str, ...] = ()
    cosine: float | None = None

    @property
    def text(self) -> str:
        """The passage, running headers and footers blanked; character i is at offset `span.start + i` of the text."""
        return self.span.of(self.document.body)

    @classmethod
    def of_chunk(cls, document: Document, chunk: Chunk) -> Passage:
        """The passage a chunk of `document` stands for. Raises ValueError for a chunk of another document."""
        if chunk.document_id != document.id:
            raise ValueError(f"the chunk is of document {chunk.document_id}, not of {document.id} ({document.name})")
        return cls(document, chunk.span, chunk.heading_path)

    @classmethod
    def of_hit(cls, document: Document, hit: Hit) -> Passage:
        """The passage a search found in `document`. Raises ValueError for a hit in another document."""
        passage = cls.of_chunk(document, hit.chunk)
        return cls(document, passage.span, passage.heading_path, hit.cosine)


class Reader(Protocol):
    """Reads passages for a question, merges what it noted, answers, judges, summarises, chooses where to look next."""

    async def read(self, passage: Passage, question: str, carried: Note | None = None) -> Note:
        """What `passage` adds to the question. With nothing to add, `carried` comes back with `unchanged` set."""
        ...

    async def read_many(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> Note:
        """What all `passages` together add to the question, in as few steps as the reader can take them."""
        ...

    def introduce(self, documents: Sequence[Document]) -> None:
        """Make documents known whose notes may be handed in without any of their passages having been read here."""
        ...

    def count(self, text: str) -> int:
        """Tokens of document text for this reader; errs high where they cannot be told."""
        ...

    def room(self, question: str, *, carrying: bool = False) -> int:
        """Tokens of text that one `read` takes, beside a carried note if `carrying`. Raises ModelConfigError."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether what it reads of a document is kept for other questions, so that all should read the same pieces."""
        ...

    def parts(self, passages: Sequence[Passage], question: str, carried: Note | None = None) -> list[Sequence[Passage]]:
        """`passages` as `read_many` would take them, step by step; each part given to it alone is one step.

        A passage too long for one step is in several parts, in pieces.
        """
        ...

    def requests(self, passage: Passage, question: str) -> Sequence[Request]:
        """What `read` would send to a model for `passage` with nothing carried in; nothing where none is asked.

        With a note carried in it sends the same up to the end of the passage.
        """
        ...

    async def merge(self, notes: Sequence[Note], question: str) -> Note:
        """One note that keeps what matters of `notes`."""
        ...

    async def answer(self, question: str, notes: Sequence[Note], *, on_text: OnText | None = None) -> Draft:
        """The answer that the notes support; `found` is false when they support none.

        `on_text` is given the claims' text as it comes. An empty piece: what was given is void, it begins anew. What
        came since the last empty piece is, at the end, `Draft.text`.
        """
        ...

    def fits(self, passages: Sequence[Passage], question: str) -> bool:
        """Whether `answer_from` takes all of `passages` together."""
        ...

    async def answer_from(self, passages: Sequence[Passage], question: str, *, on_text: OnText | None = None) -> Draft:
        """The answer that `passages` give, read all together in one step; `on_text` as for `answer`.

        Raises ContextOverflowError where they do not fit: nothing is parted or left out.
        """
        ...

    async def judge(self, question: str, claims: Sequence[Claim], *, passages: Sequence[Passage] = ()) -> Judgement:
        """Which of `claims` their quotes, and `passages` where given, bear out, and which of those answers best."""
        ...

    async def summarize(self, passages: Sequence[Passage], *, words: int) -> Summary:
        """What the passages say, in at most about `words` words."""
        ...

    async def condense(self, points: Sequence[SummaryPoint], *, words: int) -> Summary:
        """What matters most of `points`, in at most about `words` words; each has the citations of those in it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names what its summaries depend on beside the text: summaries of one fingerprint go together."""
        ...

    async def choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        """Which of `options` (summaries, titles, names) to open next; `trail` is what was read on the way here."""
        ...
