"""Stop strings across the borders of tokens: text is shown as soon as it can no longer begin one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Watches a text that arrives in pieces. The stop string itself is never shown, nor anything behind it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._reach = max(map(len, stops), default=0) - 1
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stopped

    def push(self, text: str) -> tuple[str, bool]:
        """What may be shown after this piece, and whether the text has stopped.

        Of several stop strings the one that begins first counts, however long it is. Nothing follows once it stopped.
        """
        if self._stopped or not self._stops:
            return ("" if self._stopped else text), self._stopped
        self._held += text
        found, open_at = self._found(), self._may_begin()
        if found <= open_at and found < len(self._held):
            return self._cut(found), True
        shown, self._held = self._held[:open_at], self._held[open_at:]
        return shown, False

    def flush(self) -> str:
        """At the end of the text: what was held back, as far as no stop string begins in it."""
        found = self._found()
        if found < len(self._held):
            return self._cut(found)
        shown, self._held = self._held, ""
        return shown

    def _cut(self, place: int) -> str:
        shown, self._held, self._stopped = self._held[:place], "", True
        return shown

    def _found(self) -> int:
        """Where the first whole stop string begins; the length of what is held if there is none."""
        return min((place for place in map(self._held.find, self._stops) if place >= 0), default=len(self._held))

    def _may_begin(self) -> int:
        """The first place at which a stop string may have begun that is not yet whole."""
        length = len(self._held)
        for place in range(max(0, length - self._reach), length):
            if any(len(stop) > length - place and stop.startswith(self._held[place:]) for stop in self._stops):
                return place
        return length
