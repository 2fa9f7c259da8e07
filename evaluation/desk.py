"""Who is asked: a workflow with its reader or model, the model without the document, the simplest readers there are.

The baselines say what a score is worth. A public set may be known to a model by heart: so it is asked without the
document, too. And a reader that is worth its time gives more than the first sentence of the best passage by BM25, or
the sentence most like the question by the vectors of the embedder.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Message, Profile, Request
from lcdoc.documents import Document, Span
from lcdoc.evaluation.cases import Case
from lcdoc.evaluation.rankings import Rankings
from lcdoc.evaluation.scoring import Response, Statement
from lcdoc.memory import Library
from lcdoc.memory.usage import ModelUsage
from lcdoc.retrieval import Chunker, Embedder, Index
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.asking import Asking
from lcdoc.workflows.errors import WorkflowError
from lcdoc.workflows.events import Event, PassagesFound, Started
from lcdoc.workflows.readers import ReadingDesk
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan, ignore_events

CLOSED_BOOK, FIRST_SENTENCE, BEST_SENTENCE = "closed_book", "first_sentence", "best_sentence"
BASELINES = {
    CLOSED_BOOK: "closed book",
    FIRST_SENTENCE: "BM25 + first sentence",
    BEST_SENTENCE: "vectors + best sentence",
}
_UNKNOWN = "unknown"
_CLOSED_BOOK = (
    "Answer the question from what you know, in as few words as possible: a name, a date, a number, a phrase. "
    f"If you do not know the answer, write only: {_UNKNOWN}"
)
_LONGEST_ANSWER_TOKENS = 1_024
"""Room for models that think before they answer."""
_PASSAGES = 5
"""Whose sentences are compared, and passages that a baseline says it found."""


class Desk:
    """Documents, their index and all who are asked. Belongs to the event loop it is first used in."""

    def __init__(
        self,
        library: Library,
        embedder: Embedder,
        *,
        model: str | None,
        store: StoreMode = "use",
        profile: Profile | None = None,
    ) -> None:
        self.library = library
        self._readers = ReadingDesk(library, model)
        self._asking = Asking(library, self._readers)
        self._embedder = embedder
        self._index = Index(library, embedder)
        self.rankings = Rankings(library, embedder, self._index)
        self._chunker = Chunker()
        self._store: StoreMode = store
        self._profile = profile

    @property
    def model(self) -> str:
        """The name of the model, or `offline`."""
        return self._readers.model

    @property
    def may_be_paid(self) -> bool:
        """Whether questions go to a server, which may charge for them."""
        return self._readers.spec is not None and self._readers.spec.server is not None

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._readers.aclose()

    def add(self, document: Document) -> None:
        """Index a document, with all of its vectors: so no question's answer depends on those asked before it."""
        self.library.add(document, self._chunker.chunks(document), recipe=self._chunker.recipe)
        self._index.fill(document.id)

    async def ask(
        self,
        way: str,
        case: Case,
        document: Document,
        budget: Budget,
        *,
        on_event: Callable[[Event], None] = ignore_events,
        on_lost: Callable[[ModelUsage], None] = lambda _: None,
    ) -> Response:
        """What `way`, a workflow or one of BASELINES, answers. Raises what `Workspace.ask` raises; `on_lost` is told
        before what was spent until then."""
        if way == CLOSED_BOOK:
            return await self._closed_book(case, budget, on_lost)
        if way in BASELINES:
            return await asyncio.to_thread(self._by_sentence, way, case.question, document)
        found: list[PassagesFound] = []
        runs: list[str] = []

        def watch(event: Event) -> None:
            if isinstance(event, PassagesFound):
                found.append(event)
            elif isinstance(event, Started):
                runs.append(event.run_id)
            on_event(event)

        try:
            answer = await self._asking.ask(
                case.question,
                [document],
                Search(self._index),
                self._embedder,
                workflow=way,
                budget=budget,
                store=self._store,
                profile=self._profile,
                on_event=watch,
            )
        except (ModelError, WorkflowError):
            for run_id in runs:
                on_lost(self.library.runs.find(run_id).total)
            raise
        ranking = tuple(Span(start, end) for _, start, end in found[0].passages) if found else ()
        return _response(answer, ranking)

    async def plan(self, way: str, case: Case, document: Document) -> Plan | None:
        """What asking would take; None where no model is asked."""
        spec = self._readers.spec
        if spec is None or way in (FIRST_SENTENCE, BEST_SENTENCE):
            return None
        if way == CLOSED_BOOK:
            model = await self._readers.chat(Ledger(), store="off")
            tokens_in = sum(model.count_tokens(message.content) for message in _closed_book_request(case).messages)
            price = None if spec.prices is None else (tokens_in * spec.prices.input + 20 * spec.prices.output) / 1e6
            return Plan(1, tokens_in, 20, price, None)
        return await self._asking.plan(
            case.question, [document], Search(self._index), self._embedder, workflow=way, profile=self._profile
        )

    async def _closed_book(self, case: Case, budget: Budget, on_lost: Callable[[ModelUsage], None]) -> Response:
        started, ledger = time.monotonic(), Ledger(budget)
        model = await self._readers.chat(ledger, store=self._store)
        try:
            text = (await model.complete(_closed_book_request(case))).text.strip()
        except ModelError:
            on_lost(ledger.total())
            raise
        found = bool(text) and text.strip(" .").casefold() != _UNKNOWN
        used = ledger.total()
        return Response(
            found,
            (Statement(text),) if found else (),
            calls=used.calls + used.stored_calls,
            stored_calls=used.stored_calls,
            tokens=used.tokens,
            usd=used.cost_usd,
            seconds=time.monotonic() - started,
        )

    def _by_sentence(self, way: str, question: str, document: Document) -> Response:
        started = time.monotonic()
        method = "words" if way == FIRST_SENTENCE else "meaning"
        ranked = self.rankings.ranked(method, question, document, _PASSAGES)
        body = document.body
        passages = ranked[:1] if way == FIRST_SENTENCE else ranked
        sentences = [one for span, _ in passages for one in sentence_spans(body, span.start, span.end)]
        if not sentences:
            return Response(False, seconds=time.monotonic() - started)
        best, score = sentences[0], ranked[0][1]
        if way == BEST_SENTENCE:
            vectors = self._embedder.embed([question, *(one.of(body) for one in sentences)])
            cosines = vectors[1:] @ vectors[0]
            best, score = sentences[int(cosines.argmax())], float(cosines.max())
        text = " ".join(best.of(body).split())
        pages = tuple(page.number for page in document.pages_of(best))
        return Response(
            True,
            (Statement(text, citations=((best,),), quotes=(text,), pages=pages),),
            confidence=5 * min(max(score, 0.0), 1.0),
            ranking=tuple(span for span, _ in ranked),
            seconds=time.monotonic() - started,
        )


def _closed_book_request(case: Case) -> Request:
    messages = (Message("system", _CLOSED_BOOK), Message("user", case.question))
    return Request(messages, max_tokens=_LONGEST_ANSWER_TOKENS, prompt="closed book/1")


def _response(answer: Answer, ranking: tuple[Span, ...]) -> Response:
    claims = tuple(
        Statement(
            claim.text,
            citations=tuple(citation.parts for citation in claim.citations),
            quotes=tuple(citation.quote for citation in claim.citations),
            pages=tuple(dict.fromkeys(page for citation in claim.citations for page in citation.pages)),
        )
        for claim in answer.claims
    )
    usage = answer.usage
    return Response(
        answer.found,
        claims,
        confidence=answer.confidence,
        ranking=ranking,
        calls=usage.calls + usage.stored_calls,
        stored_calls=usage.stored_calls,
        tokens=usage.tokens_in + usage.tokens_out,
        usd=usage.cost_usd,
        seconds=usage.seconds,
        partial=answer.partial,
    )
