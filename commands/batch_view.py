"""How far a batch job is: a picture that is drawn anew on a terminal, a line now and then without one.

Made from a JobStatus alone, so that who works at a job and who only watches it see the same. Names of documents are
text of others: they move no cursor and are no markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from lcdoc.screen import money, shown

if TYPE_CHECKING:
    from types import TracebackType

    from lcdoc.jobs.job import Caps
    from lcdoc.memory.job_records import DocumentCost, JobStatus
    from lcdoc.screen import Screen

_REDRAWN_HZ = 4
_FIRST_LINE_S, _LINE_EVERY_S = 5.0, 30.0
"""Without a terminal, a line so soon, and so often from then on."""
_SLOWEST = 3
_WORKERS = 4
_BAR = 24
_LABEL = 9


class BatchView:
    """Shows the status it is given. Use as a context manager: it takes the picture off the terminal."""

    def __init__(
        self, screen: Screen, caps: Caps | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._caps = caps
        self._clock = clock
        self._began = clock()
        self._said: float | None = None
        self._status: JobStatus | None = None
        self._live: Live | None = None

    def __enter__(self) -> BatchView:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the picture down."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, status: JobStatus) -> None:
        """Show how far it is."""
        self._status = status
        if self._screen.quiet:
            return
        if self._screen.err.is_terminal:
            if self._live is None:
                self._live = Live(
                    get_renderable=self._picture,
                    console=self._screen.err,
                    transient=True,
                    refresh_per_second=_REDRAWN_HZ,
                )
                self._live.start()
            return
        now = self._clock()
        due = self._began + _FIRST_LINE_S if self._said is None else self._said + _LINE_EVERY_S
        if now >= due:
            self._said = now
            self._screen.say(f"{time.strftime('%H:%M:%S')} {status_line(status, self._caps)}")

    def _picture(self) -> Text:
        if self._status is None:
            return Text()
        console = self._screen.err
        ascii_only = not console.encoding.lower().startswith("utf")
        lines = picture(self._status, console.width, caps=self._caps, ascii_only=ascii_only)
        return Text("\n").join(list(lines)[: max(3, console.height - 1)])


def picture(status: JobStatus, width: int, *, caps: Caps | None = None, ascii_only: bool = False) -> Iterator[Text]:
    """The status as lines of at most `width` columns."""
    for line in _lines(status, caps, ascii_only):
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
        yield line


def _lines(status: JobStatus, caps: Caps | None, ascii_only: bool) -> Iterator[Text]:
    documents, tasks = status.documents, status.tasks
    known = sum(documents.values())
    read = documents["ready"] + documents["failed"]
    yield _bar("read", read, known, "documents", documents["failed"], ascii_only, pages=status.pages)
    yield _bar("answered", tasks["done"] + tasks["failed"], status.total, "", tasks["failed"], ascii_only)
    if pace := ", ".join(filter(None, (_pace(status), _left(status), _state(status)))):
        yield _row("", pace)
    if spent := _spent(status, caps):
        yield _row("spent", spent)
    for number, slow in enumerate(status.slowest[:_SLOWEST]):
        yield _row("" if number else "slowest", _slow(slow))
    for number, worker in enumerate(status.workers[:_WORKERS]):
        more = len(status.workers) - _WORKERS
        also = f" (and {more} more)" if number == _WORKERS - 1 and more > 0 else ""
        yield _row("" if number else "workers", f"{shown(worker.id)}{also}: {_one_line(worker.doing) or 'begins'}")


def status_line(status: JobStatus, caps: Caps | None = None) -> str:
    """`312 of 512 documents read (2 failed), 801 of 1,536 answers, 27 a minute, $1.23, about 41 min left`."""
    documents, tasks = status.documents, status.tasks
    read, known = documents["ready"] + documents["failed"], sum(documents.values())
    parts = [
        f"{read:,} of {known:,} documents read{_failed(documents['failed'])}",
        f"{tasks['done'] + tasks['failed']:,} of {status.total:,} answers{_failed(tasks['failed'])}",
        _pace(status),
        _spent(status, caps),
        _left(status),
        _state(status),
    ]
    return ", ".join(filter(None, parts))


def _bar(
    label: str, done: int, total: int, what: str, failed: int, ascii_only: bool, *, pages: int | None = None
) -> Text:
    full = _BAR if total == 0 else _BAR * done // total
    glyphs = ("#", ".") if ascii_only else ("\u2588", "\u2591")
    said = f"  {done:,} of {total:,}{' ' + what if what else ''}"
    line = Text.assemble((f"{label:<{_LABEL}} ", "dim"), (glyphs[0] * full, "green"), glyphs[1] * (_BAR - full), said)
    if pages:
        line.append(f", {pages:,} pages")
    if failed:
        line.append(f", {failed:,} failed", "yellow")
    return line


def _row(label: str, said: str) -> Text:
    return Text.assemble((f"{label:<{_LABEL}} ", "dim"), said)


def _pace(status: JobStatus) -> str:
    if status.job.state != "open" or not (status.tasks_per_minute or status.documents_per_minute):
        return ""
    return f"{_rate(status.documents_per_minute)} documents and {_rate(status.tasks_per_minute)} answers a minute"


def _rate(per_minute: float) -> str:
    return f"{per_minute:,.0f}" if per_minute >= 10 else f"{per_minute:.1f}"


def _left(status: JobStatus) -> str:
    if status.job.state != "open" or status.left_s is None or not status.unfinished:
        return ""
    return f"about {duration(status.left_s)} left"


def _state(status: JobStatus) -> str:
    job = status.job
    if job.state == "open":
        return ""
    return f"{job.state}: {_one_line(job.reason)}" if job.reason else job.state


def _spent(status: JobStatus, caps: Caps | None) -> str:
    usage = status.usage
    cap = None if caps is None else caps.usd
    if not usage.calls and not usage.stored_calls and cap is None:
        return ""
    usd = (
        f"at least {money(status.known_usd)}" if usage.cost_usd is None and status.known_usd else money(usage.cost_usd)
    )
    tokens = f"{usage.tokens_in + usage.tokens_out:,} tokens"
    calls = f"{usage.calls:,} call{'s'[: usage.calls != 1]}"
    return f"{usd}{'' if cap is None else f' of {money(cap)}'}, {calls}, {tokens}"


def _slow(slow: DocumentCost) -> str:
    name = _one_line(slow.path).replace("\\", "/").rsplit("/", 1)[-1]
    name = name if len(name) <= 40 else name[:39] + "\u2026"
    pages = f" ({slow.pages:,} page{'s'[: slow.pages != 1]})" if slow.pages else ""
    return f"{duration(slow.seconds)}  {name}{pages}"


def _failed(count: int) -> str:
    return f" ({count:,} failed)" if count else ""


def _one_line(text: str) -> str:
    return " ".join(shown(text).split())


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `5 h 20 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h"
