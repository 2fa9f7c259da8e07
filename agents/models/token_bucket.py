"""A rate limit for any minute, by the token bucket algorithm."""

from __future__ import annotations

from typing import Final

BURST_MINUTES: Final = 1 / 20
"""What a bucket holds: this part of a minute's allowance may be used at once."""


class Bucket:
    """A token bucket that lets no 60 seconds have more than `per_minute`, full at the beginning.

    It holds `capacity`, and refills as fast as leaves room for a burst of that in the same minute. `state`, of
    another, is gone on with.
    """

    def __init__(self, per_minute: int, now: float, state: tuple[float, float] | None = None) -> None:
        self.capacity = max(1.0, per_minute * BURST_MINUTES)
        self.per_second = (per_minute - (self.capacity - 1)) / 60
        self._level, self._at = (self.capacity, now) if state is None else state
        self._level = min(self._level, self.capacity)

    @property
    def state(self) -> tuple[float, float]:
        """How much was in it, and when."""
        return self._level, self._at

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken. More than the bucket holds may be taken when it is full."""
        self._refill(now)
        return max(0.0, (min(amount, self.capacity) - self._level) / self.per_second)

    def take(self, amount: float) -> None:
        """Take `amount`, which may leave a debt. A negative one is given back."""
        self._level = min(self.capacity, self._level - amount)

    def _refill(self, now: float) -> None:
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.per_second)
            self._at = now
