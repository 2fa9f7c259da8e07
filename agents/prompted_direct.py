"""Answering through a language model from documents that fit its window whole: one call, no notes in between."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.models.errors import ContextOverflowError, ModelConfigError
from lcdoc.agents.models.model import OnText
from lcdoc.agents.notes import Claim, Draft, best_citation
from lcdoc.agents.prompted_answering import checked_claim, draft_of_claims
from lcdoc.agents.prompted_skill import PromptedSkill
from lcdoc.agents.prompts.claim_stream import ClaimStream
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.schemas import DirectAnswering
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage

MAX_CLAIM_QUOTES = 6
"""Quotes taken for one claim."""

_log = logging.getLogger(__name__)


class PromptedDirect(PromptedSkill):
    """Reads everything and answers at once."""

    def fits(self, passages: Sequence[Passage], question: str) -> bool:
        """Whether `answer_from` takes all of `passages`: counted, and errs towards no."""
        try:
            return self._tokens(passages) <= self._room(question)
        except ModelConfigError:
            # There is no room for a sentence, which whatever is chosen instead will say.
            return False

    async def answer_from(self, passages: Sequence[Passage], question: str, *, on_text: OnText | None = None) -> Draft:
        """The answer that `passages` give, each claim with verbatim quotes. No call where there are no passages.

        Quotes that are not in the source are dropped and counted. A claim is as sure as the model says it is; an
        unsupported one, and one with figures of its own, less: see `checked_claim`. Raises ContextOverflowError, before
        anything is sent or because the server says so, where the passages do not fit.
        """
        if not passages:
            return Draft(found=False)
        tokens, room = self._tokens(passages), self._room(question)
        if tokens > room:
            raise ContextOverflowError(
                self._asker.name,
                f"the text has about {tokens} tokens, and {room} fit beside the question and the answer",
            )
        stream = ClaimStream(on_text) if on_text else None
        fields = {"passages": self._asker.passages(passages), "question": question}
        answering = await self._asker.ask("direct", DirectAnswering, fields, on_text=stream, piece=passages)
        draft = self._checked(answering, passages, question)
        if stream:
            stream.finish(draft.text)
        return draft

    def _tokens(self, passages: Sequence[Passage]) -> int:
        return self._asker.passages_tokens(passages)

    def _room(self, question: str) -> int:
        return self._asker.room("direct", DirectAnswering, {"passages": "", "question": question})

    def _checked(self, answering: DirectAnswering, passages: Sequence[Passage], question: str) -> Draft:
        places = [(passage.document, passage.span) for passage in passages]
        claims: list[Claim] = []
        dropped = 0
        for claim in answering.claims if answering.found else ():
            citations: list[Citation] = []
            for quote in claim.quotes[:MAX_CLAIM_QUOTES]:
                citation = best_citation(places, restored(quote))
                if citation is None:
                    dropped += 1
                elif all(citation.parts != other.parts for other in citations):
                    citations.append(citation)
            claims += checked_claim(claim.text, citations, claim.confidence, question)
        if dropped:
            _log.info("%s: %d quotes that are not in the source were dropped", self._asker.name, dropped)
        return draft_of_claims(claims, dropped=dropped)
