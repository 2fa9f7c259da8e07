"""This process's part in what a job, or one of its documents, may spend; and the whole account as it is at a moment."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lcdoc.memory.purse_rows import WHOLE_JOB, Row
from lcdoc.memory.spending import CapReachedError, Caps, Spending, Whose, added, fits, refusal


@dataclass(slots=True)
class Part:
    """This process's part in what the job, or one of its documents, may spend."""

    document: int
    caps: Caps
    spent: Spending | None = None
    """None: what its row says was not looked up yet."""
    held: dict[int, Spending] = field(default_factory=dict)
    uses: int = 0
    """Reservations, and those at work: it is at hand as long as there are any."""
    at_work: int = 0
    seconds: float = 0.0
    """Of all processes at work, at the moment `seconds_at` of the monotonic clock."""
    seconds_at: float = 0.0

    @property
    def whose(self) -> Whose:
        return "job" if self.document == WHOLE_JOB else "document"

    def remaining_s(self) -> float | None:
        if self.caps.seconds is None:
            return None
        since_s = time.monotonic() - self.seconds_at if self.at_work else 0.0
        return max(0.0, self.caps.seconds - self.seconds - since_s)


@dataclass(frozen=True, slots=True)
class Seen:
    """An account as it is at one moment."""

    part: Part
    others: Sequence[Row]

    def refusal(self, worst: Spending, now: float | None = None) -> CapReachedError | None:
        """Why a call cannot be admitted even if those under way took nothing.

        With `now`, what processes that are gone by then held back is taken for spent.
        """
        gone = [] if now is None else [other.owner for other in self.others if other.is_gone(now)]
        lost = added(other.held for other in self.others if other.owner in gone)
        living = added(other.held for other in self.others if other.owner not in gone)
        under_way = living + added(self.part.held.values())
        return refusal(self.part.whose, self.part.caps, self._spent + lost, under_way, worst)

    def fits(self, worst: Spending) -> bool:
        """Whether the caps hold if everything under way costs the most it can."""
        held = added(self.part.held.values()) + added(other.held for other in self.others)
        return fits(self.part.caps, self._spent + held, worst)

    @property
    def _spent(self) -> Spending:
        return (self.part.spent or Spending()) + added(other.spent for other in self.others)
