"""The live view of a question being answered: the document as a strip that colours in, notes with their pages, what it
has cost, and the answer as it is written. Made from events alone; drawn anew at the width there is.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from lcdoc.screen import money, pages_text, shown
from lcdoc.workflows import events

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from lcdoc.workflows.answer import Answer, DocumentRef, Usage
    from lcdoc.workflows.events import Event, Place

_UNREAD, _PARTLY, _READ, _FOUND = range(4)
_CELLS = {
    _UNREAD: ("\u00b7", "dim"),
    _PARTLY: ("\u2592", "blue"),
    _READ: ("\u2591", "blue"),
    _FOUND: ("\u2588", "green"),
}
_ASCII = {_UNREAD: ".", _PARTLY: "-", _READ: "=", _FOUND: "#"}
_WIDEST_PIECE = 4
_NOTES = 5
_FRAME = 2
"""Columns beside a strip."""


class Strip:
    """Pieces of documents in order, each unread, read, or read with something found."""

    def __init__(self) -> None:
        self._marks: dict[Place, int] = {}
        self._order: list[Place] = []

    def __len__(self) -> int:
        return len(self._order)

    @property
    def read(self) -> int:
        """How many pieces were read."""
        return sum(mark != _UNREAD for mark in self._marks.values())

    def lay_out(self, places: Sequence[Place]) -> None:
        """Add pieces; those that are there keep their marks."""
        for place in places:
            self._marks.setdefault(place, _UNREAD)
        self._order = sorted(self._marks)

    def mark(self, place: Place, *, found: bool) -> None:
        """The text at `place` was read: the pieces that it is, or has a part of."""
        value = _FOUND if found else _READ
        for piece in [place] if place in self._marks else self._overlapped(place):
            self._marks[piece] = max(self._marks[piece], value)

    def _overlapped(self, place: Place) -> Iterator[Place]:
        document_id, start, end = place
        first = max(0, bisect_left(self._order, (document_id, start, start)) - 1)
        for piece in self._order[first : bisect_right(self._order, (document_id, end, end))]:
            if piece[0] == document_id and piece[1] < end and start < piece[2]:
                yield piece

    def text(self, width: int, *, ascii_only: bool = False) -> Text:
        """At most `width` columns; where there are more pieces, several share one."""
        return _cells([self._marks[place] for place in self._order], width, ascii_only=ascii_only)


def _cells(marks: Sequence[int], width: int, *, ascii_only: bool) -> Text:
    text = Text(no_wrap=True, overflow="crop")
    if not marks or width <= 0:
        return text
    columns = min(len(marks), width)
    each = max(1, min(_WIDEST_PIECE, width // len(marks)))
    for column in range(columns):
        shared = marks[column * len(marks) // columns : (column + 1) * len(marks) // columns]
        mark = max(shared)
        if mark == _READ and min(shared) == _UNREAD:
            mark = _PARTLY
        glyph, style = _CELLS[mark]
        text.append((_ASCII[mark] if ascii_only else glyph) * each, style)
    return text


class LiveView:
    """What is known of the run so far, as something rich can draw. Events may come from another thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._begun = clock()
        self._strip = Strip()
        self._lines: deque[tuple[str, str, str]] = deque(maxlen=_NOTES)
        self._notes = 0
        self._usage: Usage | None = None
        self._usd_cap: float | None = None
        self._answer = ""

    def handle(self, event: Event) -> None:
        """Take an event in."""
        with self._lock:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case events.Pieces(places) | events.PassagesFound(places):
                self._strip.lay_out(places)
            case events.Resumed():
                self._strip.lay_out(event.pieces)
                for place in event.read:
                    self._strip.mark(place, found=place in event.found)
                self._notes = event.notes
            case events.NoteTaken():
                self._note(event)
            case events.Conflict():
                said = " / ".join(
                    f"{claim} ({_pages(pages)})" for claim, pages in zip(event.claims, event.pages, strict=True)
                )
                self._lines.append(("contradiction", said, "yellow"))
            case events.Settled():
                self._lines.append(("settled", event.claim or f"not settled: {event.reason}", "yellow"))
            case events.Stepped():
                self._lines.append((event.action, event.node, "dim"))
            case events.PartFailed():
                self._lines.append(("failed", event.message, "yellow"))
            case events.Spent():
                self._usage, self._usd_cap = event.usage, event.budget.usd
            case events.Partial():
                self._answer = event.text

    def _note(self, event: events.NoteTaken) -> None:
        says = event.found and not event.unchanged
        for place in event.places:
            self._strip.mark(place, found=says)
        self._notes += says
        if says and event.claim:
            self._lines.append((_pages(event.pages), event.claim, "cyan"))

    def status(self, width: int = 80) -> str:
        """`12 of 200 pieces, 5 notes, 34,120 tokens, $0.0123 of $0.10, 0:42`; what does not fit is left out."""
        seconds = int(self._clock() - self._begun)
        parts = [f"{seconds // 60}:{seconds % 60:02}"]
        usage = self._usage
        wanted = [
            f"{self._strip.read:,} of {len(self._strip):,} pieces" if self._strip else "",
            f"{self._notes:,} note{'s'[: self._notes != 1]}" if self._notes else "",
            money(usage.cost_usd) + (f" of {money(self._usd_cap)}" if self._usd_cap else "")
            if usage and usage.calls and (usage.cost_usd is not None or self._usd_cap)
            else "",
            f"{usage.tokens_in + usage.tokens_out:,} tokens" if usage and usage.calls else "",
        ]
        for part in filter(None, wanted):
            if len(", ".join([*parts, part])) <= width:
                parts.insert(len(parts) - 1, part)
        return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, max(4, options.height or console.height)
        with self._lock:
            lines: list[Text] = []
            if self._strip:
                lines.append(self._strip.text(width - _FRAME, ascii_only=_ascii_only(console)))
            lines.append(Text(self.status(width), style="dim", no_wrap=True, overflow="crop"))
            if self._answer:
                written = Text(shown(self._answer), style="dim").wrap(console, width)
                lines += written[-(height - len(lines) - 1) :]
            else:
                lines += [_line(*line, width=width) for line in list(self._lines)[-(height - len(lines) - 1) :]]
        yield Text("\n").join(lines)


def _line(label: str, said: str, style: str, *, width: int) -> Text:
    text = Text.assemble((f"{shown(label)}: ", style), " ".join(shown(said).split()))
    text.truncate(width, overflow="ellipsis")
    return text


def _pages(pages: Sequence[int]) -> str:
    return f"p. {pages[0]}" if len(pages) == 1 else f"pp. {pages[0]}-{pages[-1]}" if pages else "no page"


def _ascii_only(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")


def evidence_line(answer: Answer, console: Console) -> Text | None:
    """Where in its document the answer's evidence lies, what was read beside it, and the pages; None without any.

    Of several documents, the one with the most evidence is drawn.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    pages: dict[str, set[int]] = {}
    for claim in answer.claims:
        for citation in claim.citations:
            spans.setdefault(citation.document_id, []).append((citation.span.start, citation.span.end))
            pages.setdefault(citation.document_id, set()).update(citation.pages)
    if not spans:
        return None
    most = max(spans, key=lambda document_id: len(spans[document_id]))
    document = answer.document(most)
    if document.pages > 1:
        label = _listed(sorted(pages[most]))
        marks = _page_marks(answer, document, pages[most])
    else:
        label = document.name
        marks = _offset_marks(document, spans[most])
    label = f" {label}"
    room = max(10, console.width - min(len(label), console.width // 2) - _FRAME)
    line = _cells(marks, room, ascii_only=_ascii_only(console))
    line.append(label, "dim")
    line.truncate(console.width, overflow="ellipsis")
    return line


def _page_marks(answer: Answer, document: DocumentRef, cited: set[int]) -> list[int]:
    read = {
        number
        for pages in answer.pages_read
        if pages.document_id == document.id
        for first, last in pages.read
        for number in range(first, last + 1)
    }
    return [
        _FOUND if number in cited else _READ if number in read else _UNREAD for number in range(1, document.pages + 1)
    ]


def _offset_marks(document: DocumentRef, spans: Sequence[tuple[int, int]]) -> list[int]:
    cells = 60
    size = max(1, document.characters)
    marks = [_UNREAD] * cells
    for start, end in spans:
        for cell in range(start * cells // size, min(cells - 1, (max(start, end - 1)) * cells // size) + 1):
            marks[cell] = _FOUND
    return marks


def _listed(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return pages_text((numbers[0],), ())
    most = 6
    return "pages " + ", ".join(map(str, numbers[:most])) + ("\u2026" if len(numbers) > most else "")
