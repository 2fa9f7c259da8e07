"""How far an evaluation is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lcdoc.screen import shown

if TYPE_CHECKING:
    from types import TracebackType

    from lcdoc.screen import Screen

_LINE_EVERY_S = 10.0


class EvalView:
    """Shows how many questions are done. Use as a context manager: it takes the bar down."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._said_s = time.monotonic()
        self.done = self.total = 0
        shown = not screen.quiet and screen.err.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        left = TimeRemainingColumn(compact=True)
        self._bar = Bar(*columns, left, console=screen.err, transient=True, expand=True) if shown else None
        self._task = None if self._bar is None else self._bar.add_task("", total=None)

    def __enter__(self) -> EvalView:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, done: int, total: int, document: str, failed: int = 0) -> None:
        """`done` of `total` answers are there, `failed` of them failures; `document` is being asked about."""
        self.done, self.total = done, total
        failures = f", {failed} failed" if failed else ""
        if self._bar is not None and self._task is not None:
            short = shown(document if len(document) <= 40 else f"{document[:39]}\u2026")
            self._bar.update(self._task, completed=done, total=total, description=f"{escape(short)}{failures}")
        elif time.monotonic() - self._said_s >= _LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._screen.say(f"{done:,} of {total:,} answers{failures}; {document}")
