"""Summarising through a language model, point by point, each point with the quote it rests on where that was found."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.notes import Summary, SummaryPoint, best_citation
from lcdoc.agents.prompted_skill import PromptedSkill, indices_of
from lcdoc.agents.prompts.asker import all_of
from lcdoc.agents.prompts.checks import is_refusal, plain
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.schemas import Condensing, Summarizing
from lcdoc.agents.prompts.templates import Skill, prompt
from lcdoc.agents.reader import Passage

_LEAST_SUMMARY_WORDS = 60
_TOO_LONG = 1.3
"""A summary made of several is shortened when it is this many times longer than asked for."""

_log = logging.getLogger(__name__)


class PromptedSummaries(PromptedSkill):
    """Summarises passages."""

    async def summarize(self, passages: Sequence[Passage], *, words: int) -> Summary:
        """What the passages say, in order, each point with the quote it rests on, where it has one that was found.

        Passages beyond the window are summarised in parts by length, and the whole shortened to about `words`.
        """
        total = sum(len(passage.span) for passage in passages) or 1

        async def summarize(pack: Sequence[Passage]) -> list[SummaryPoint]:
            share = words * sum(len(passage.span) for passage in pack) / total
            least = min(words, _LEAST_SUMMARY_WORDS)
            fields = {"passages": self._asker.passages(pack), "words": str(max(least, round(share)))}
            summarizing = await self._asker.ask("summarize", Summarizing, fields)
            return [_point(pack, plain(item.text), restored(item.quote)) for item in summarizing.points]

        fixed = {"passages": "", "words": str(words)}
        parts = await self._asker.each_pack("summarize", Summarizing, passages, fixed, summarize)
        points = tuple(point for part in parts for point in part if point.text and not is_refusal(point.text))
        if len(parts) > 1:
            points = await self._condensed(points, words)
        return Summary(points=points)

    async def condense(self, points: Sequence[SummaryPoint], *, words: int) -> Summary:
        """`points` put together to about `words` words where they are much longer.

        A point has the citations of all points that the model says it was made of.
        """
        return Summary(points=await self._condensed(tuple(points), words))

    @property
    def fingerprint(self) -> str:
        """The model, and the prompts that summaries are made with."""
        skills: tuple[Skill, ...] = ("summarize", "condense")
        prompts = (prompt(skill, self._asker.profile) for skill in skills)
        return ", ".join([self._asker.served, *(f"{one.name} {one.digest}" for one in prompts)])

    def _point_block(self, point: SummaryPoint) -> str:
        return self._blocks.numbered("point", [point.text])

    async def _condensed(self, points: tuple[SummaryPoint, ...], words: int) -> tuple[SummaryPoint, ...]:
        long = Summary(points=points).words
        if long <= _TOO_LONG * words:
            return points
        fixed = {"points": "", "words": str(words)}
        parts = self._asker.fitting("condense", Condensing, points, fixed, self._point_block)

        async def condense(part: Sequence[SummaryPoint]) -> list[SummaryPoint]:
            share = round(words * Summary(points=tuple(part)).words / long)
            fields = {
                "points": self._blocks.numbered("point", (point.text for point in part)),
                "words": str(max(min(words, _LEAST_SUMMARY_WORDS), share)),
            }
            condensing = await self._asker.ask("condense", Condensing, fields)
            return [
                _condensed_point(plain(item.text), [part[index] for index in indices_of(item.evidence, len(part))])
                for item in condensing.points
            ]

        shorter = tuple(p for part in await all_of([condense(part) for part in parts]) for p in part if p.text)
        if not shorter:
            _log.warning("%s: shortening left nothing of a summary, so it stays long", self._asker.name)
            return points
        # One more round only if this one got somewhere.
        if len(parts) > 1 and Summary(points=shorter).words < 0.8 * long:
            return await self._condensed(shorter, words)
        return shorter


def _point(pack: Sequence[Passage], text: str, quote: str) -> SummaryPoint:
    citation = best_citation([(passage.document, passage.span) for passage in pack], quote) if quote.strip() else None
    if citation is None:
        paths = {passage.heading_path for passage in pack}
        return SummaryPoint(text=text, heading_path=paths.pop() if len(paths) == 1 else ())
    return SummaryPoint(text=text, heading_path=citation.headings, citations=(citation,))


def _condensed_point(text: str, points: Sequence[SummaryPoint]) -> SummaryPoint:
    citations = tuple(dict.fromkeys(citation for point in points for citation in point.citations))
    paths = {point.heading_path for point in points}
    return SummaryPoint(text=text, heading_path=paths.pop() if len(paths) == 1 else (), citations=citations)
