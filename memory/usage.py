"""What model calls have cost: the figures that runs keep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """Calls to one model (or several together), and what they cost."""

    calls: int = 0
    """Requests that were sent, those that failed or were sent again included."""
    failed_calls: int = 0
    """Of those, how many brought no answer."""
    stored_calls: int = 0
    """Requests answered from the call store: nothing was sent, nothing charged."""
    tokens_in: int = 0
    """Of the requests sent; `tokens_cached`, the part the server had cached, is included."""
    tokens_cached: int = 0
    tokens_out: int = 0
    cost_usd: float | None = 0.0
    """None: some of it is not known, because a price is not."""
    seconds: float = 0.0
    """Sum over the requests: more than the time that passed when several were under way at once."""
    estimated: bool = False
    """Some token figures were counted here, because the server gave none that can be believed."""

    def __add__(self, other: ModelUsage) -> ModelUsage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return ModelUsage(
            calls=self.calls + other.calls,
            failed_calls=self.failed_calls + other.failed_calls,
            stored_calls=self.stored_calls + other.stored_calls,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_cached=self.tokens_cached + other.tokens_cached,
            tokens_out=self.tokens_out + other.tokens_out,
            cost_usd=(self.cost_usd or 0.0) + (other.cost_usd or 0.0) if known else None,
            seconds=self.seconds + other.seconds,
            estimated=self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out
