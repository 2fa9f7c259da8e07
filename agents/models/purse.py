"""A purse: what several runs, in whatever processes, may spend together.

A run's ledger reserves its calls there too.
"""

from __future__ import annotations

from typing import Protocol

from lcdoc.memory.spending import CapReachedError, Spending


class Purse(Protocol):
    """What may still be spent beside a run's own budget. For the tasks of one event loop."""

    @property
    def caps_usd(self) -> bool:
        """Whether money is capped: then no model is asked whose prices are not known."""

    def remaining_s(self) -> float | None:
        """Seconds until the time is up, 0 when it is; None without a cap on it."""

    def time_is_up(self) -> CapReachedError:
        """The error for a call that comes when `remaining_s()` is 0."""

    async def reserve(self, worst: Spending) -> int:
        """Hold back what a call may take, and return the reservation's number, to be settled or released.

        Waits while calls under way may yet leave enough by taking less than their worst case. Raises CapReachedError
        when they cannot, and LibraryError.
        """

    def settle(self, number: int, spent: Spending) -> None:
        """Enter what a call that was sent took. Does not wait: it is kept soon, and until then counts as its worst."""

    def release(self, number: int) -> None:
        """The call was not sent after all."""
