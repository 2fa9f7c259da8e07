"""Choosing and judging through a language model: which part to open next, which claims the text bears out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lcdoc.agents.notes import Choice, Claim, Judgement, Verdict
from lcdoc.agents.packing import shortened
from lcdoc.agents.prompted_skill import PromptedSkill, indices_of
from lcdoc.agents.prompts.checks import plain
from lcdoc.agents.prompts.schemas import CHOICES, JUDGEMENTS
from lcdoc.agents.reader import Passage

_log = logging.getLogger(__name__)


class PromptedJudging(PromptedSkill):
    """Chooses among options, and judges claims."""

    async def choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        """The option most likely to help; None for none. Options and trail too long for the window are shortened."""
        if not options:
            return Choice(option=None, reason="nothing to choose from")
        schema = CHOICES[self._asker.profile]
        fixed = {"options": "", "trail": "", "question": question}
        share = max(
            1, int(self._asker.room("choose", schema, fixed) / (len(options) + len(trail))) - self._asker.block_tokens()
        )
        fields = {
            "options": self._blocks.numbered("option", [shortened(text, share, self._asker.count) for text in options]),
            "trail": self._blocks.read_before([shortened(text, share, self._asker.count) for text in trail]),
            "question": question,
        }
        choosing = await self._asker.ask("choose", schema, fields)
        reason = plain(getattr(choosing, "reason", ""))
        if not 1 <= choosing.option <= len(options):
            return Choice(option=None, reason=reason or "the model chose none of the options")
        return Choice(option=choosing.option - 1, reason=reason, confidence=round(choosing.confidence, 2))

    async def judge(self, question: str, claims: Sequence[Claim], *, passages: Sequence[Passage] = ()) -> Judgement:
        """Which of `claims` the text bears out. One claim: whether its quotes do.

        A claim without quotes can be supported only by `passages`. Those that do not fit the window beside the claims
        are left out, the last first, and the log says so.
        """
        if not claims:
            return Judgement(verdicts=())
        schema = JUDGEMENTS[self._asker.profile]
        shown = self._blocks.claims(claims)
        fixed = {"passages": "", "claims": shown, "question": question}
        packs = self._asker.packed("judge", schema, passages, fixed) if passages else []
        if len(packs) > 1:
            _log.warning("%s: %d passages do not fit beside the claims", self._asker.name, sum(map(len, packs[1:])))
        reread = self._asker.passages(packs[0]) if packs else ""
        judging = await self._asker.ask("judge", schema, {**fixed, "passages": reread})
        supported = set(indices_of(judging.supported, len(claims)))
        contradicted = set(indices_of(judging.contradicted, len(claims))) - supported

        def verdict(index: int) -> Verdict:
            if index in contradicted:
                return "contradicted"
            return "supported" if index in supported and (claims[index].citations or reread) else "not_shown"

        verdicts = tuple(verdict(index) for index in range(len(claims)))
        best = judging.best - 1
        if not 0 <= best < len(claims) or verdicts[best] != "supported":
            best = verdicts.index("supported") if "supported" in verdicts else -1
        return Judgement(
            verdicts=verdicts,
            best=best if best >= 0 else None,
            reason=plain(getattr(judging, "reason", "")),
            confidence=round(judging.confidence, 2),
        )
