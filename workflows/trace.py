"""Who read what in a run, what was noted, dropped, merged and contradicted: a tree, from what the run recorded.

Notes that were merged lie under the note they became; all else is in the order in which it happened.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lcdoc.documents import Document, Span
from lcdoc.memory import Library
from lcdoc.memory.errors import UnknownDocumentError
from lcdoc.memory.runs import Run
from lcdoc.workflows.events import Place

_LEAST_MERGED = 2
"""A note made of one other carries it on; it does not stand above it."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened. `fields` are plain JSON values, `pieces` count from 1, `pages` are what was read."""

    kind: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    pieces: tuple[int, ...] = ()
    pages: tuple[int, ...] = ()
    nothing: bool = False
    """It was read, and there was nothing to add."""
    children: tuple[Step, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The step as plain JSON values."""
        return {
            "kind": self.kind,
            "text": self.text,
            "pieces": list(self.pieces),
            "pages": list(self.pages),
            "nothing": self.nothing,
            "fields": dict(self.fields),
            "children": [child.as_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run did."""

    run: Run
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """The run and every step as plain JSON values; nothing is folded."""
        return {"run": self.run.as_dict(), "steps": [step.as_dict() for step in self.steps]}

    def lines(self, width: int = 80) -> Iterator[str]:
        """The tree as text of at most `width` columns; pieces in which there was nothing share a line."""
        run = self.run
        yield from _wrapped(f"run {run.id}: {run.workflow} through {run.model}, {run.status}", "", width)
        yield from _wrapped(f"question: {run.question}", "", width)
        yield from _tree(self.steps, 0, width)


def trace(library: Library, run: Run) -> Trace:
    """The trace of a recorded run. Page numbers are there as long as the library has the documents."""
    return Trace(run, tuple(_Tracing(library, run).steps()))


class _Tracing:
    def __init__(self, library: Library, run: Run) -> None:
        self._library = library
        self._run = run
        self._documents: dict[str, Document] = {}
        for document_id, _ in run.documents:
            try:
                self._documents[document_id] = library.get(document_id)
            except UnknownDocumentError:
                continue  # removed since: its pages are not shown
        self._numbers: dict[Place, int] = {}

    def steps(self) -> Iterator[Step]:
        """The top of the tree."""
        entries = self._library.notebook.events(self._run.id)
        for entry in entries:
            if entry.kind == "Pieces":
                self._numbers = {_place(place): number for number, place in enumerate(entry.fields["places"], 1)}
        happened: list[Step | str] = []
        notes: dict[str, Mapping[str, Any]] = {}
        for entry in entries:
            if entry.kind == "NoteTaken":
                # A note that was taken again stands where it was taken first, as it was taken last.
                if entry.fields["name"] not in notes:
                    happened.append(entry.fields["name"])
                notes[entry.fields["name"]] = entry.fields
            elif (telling := _TOLD.get(entry.kind)) is not None and (step := telling(self, entry.fields)) is not None:
                happened.append(step)
        for name, fields in self._untold(notes):
            happened.append(name)
            notes[name] = fields
        made = self._notes(notes)
        yield from _in_order([made[one] if isinstance(one, str) else one for one in happened if _is_top(one, made)])
        yield from self._answer()

    def _untold(self, told: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Notes that were kept, of which the process could not tell before it ended."""
        for name, kept in self._library.notebook.notes(self._run.id).items():
            note = kept.get("note")
            if note is None or name in told:
                continue
            pages = sorted({page for quote in note["quotes"] for page in quote["citation"]["pages"]})
            shown = {key: note[key] for key in ("found", "dropped", "claim", "confidence", "unchanged")}
            extra = {"name": name, "places": kept["places"], "of": kept["of"], "pages": pages}
            yield name, {**shown, **extra, "quotes": len(note["quotes"])}

    def _notes(self, notes: Mapping[str, Mapping[str, Any]]) -> dict[str, Step]:
        """A step for each note that lies under no other, by name."""
        parents = {
            of: name
            for name, fields in notes.items()
            if len(fields["of"]) >= _LEAST_MERGED
            for of in fields["of"]
            if of in notes and of != name
        }

        def made(name: str, above: frozenset[str]) -> Step:
            under = [of for of in notes[name]["of"] if parents.get(of) == name and of not in above]
            return self._note(notes[name], _in_order([made(of, above | {name}) for of in under]))

        return {name: made(name, frozenset([name])) for name in notes if name not in parents}

    def _note(self, fields: Mapping[str, Any], children: Sequence[Step]) -> Step:
        places = list(map(_place, fields["places"]))
        pieces = tuple(sorted({self._numbers[place] for place in places if place in self._numbers}))
        pages = self._pages_of(places)
        nothing = not children and (not fields["found"] or fields["unchanged"]) and not fields["dropped"]
        merged = len(fields["of"]) if len(fields["of"]) >= _LEAST_MERGED else 0
        what = f"{merged} notes merged" if merged else _where(pieces, pages, len(places)) or fields["name"]
        if not fields["found"] or fields["unchanged"]:
            said = "nothing"
        else:
            said = fields["claim"] or "quotes only"
            said += f" ({_evidence(fields)})"
        if fields["dropped"]:
            said += f"; {_count(fields['dropped'], 'quote')} not in the source, dropped"
        kind = "merged" if merged else "read"
        return Step(kind, f"{what}: {said}", fields, pieces, pages, nothing, tuple(children))

    def _pages_of(self, places: Sequence[Place]) -> tuple[int, ...]:
        numbers: set[int] = set()
        for document_id, start, end in places:
            document = self._documents.get(document_id)
            if document is not None and len(document.pages) > 1:
                numbers.update(page.number for page in document.pages_of(Span(start, end)))
        return tuple(sorted(numbers))

    def _answer(self) -> Iterator[Step]:
        answer = self._run.answer
        if answer is None:
            if self._run.error:
                yield Step("failed", f"the run failed: {self._run.error}")
            return
        claims = []
        for claim in answer["claims"]:
            pages = tuple(sorted({page for citation in claim["citations"] for page in citation["pages"]}))
            evidence = _pages(pages) if claim["citations"] else "unsupported"
            claims.append(Step("claim", f"{claim['text']} ({evidence})", {"pages": list(pages)}))
        how = "partial answer" if answer["partial"] else "answer"
        text = f"{how}: {_count(len(claims), 'claim')}" if answer["found"] else f"{how}: not found"
        yield Step("answer", text, children=tuple(claims))

    # What else is told

    def pieces(self, fields: Mapping[str, Any]) -> Step:
        return Step("pieces", f"cut into {_count(len(fields['places']), 'piece')}", {"pieces": len(fields["places"])})

    def passages(self, fields: Mapping[str, Any]) -> Step:
        found = list(map(_place, fields["passages"]))
        pages = self._pages_of(found)
        on = f", on {_pages(pages)}" if pages else ""
        text = f"{_count(len(found), 'passage')} found among {fields['searched']:,}{on}"
        return Step("found", text, {"searched": fields["searched"]}, pages=pages)

    def read_through(self, fields: Mapping[str, Any]) -> Step:
        return Step("cache", f"read through caches kept by {fields['recipe']}", fields)

    def chosen(self, fields: Mapping[str, Any]) -> Step:
        return Step("chosen", f"{fields['workflow']} chosen: {fields['reason']}", fields)

    def resumed(self, fields: Mapping[str, Any]) -> Step:
        return Step("resumed", f"gone on with, {_count(fields['notes'], 'note')} kept", fields)

    def conflict(self, fields: Mapping[str, Any]) -> Step:
        sides = [f"{claim} ({_pages(pages)})" for claim, pages in zip(fields["claims"], fields["pages"], strict=True)]
        return Step("contradiction", f"contradiction: {' <> '.join(sides)}", fields)

    def settled(self, fields: Mapping[str, Any]) -> Step:
        said = f"settled: {fields['claim']}" if fields["claim"] else "not settled"
        return Step("settled", f"{said}; {fields['reason']}" if fields["reason"] else said, fields)

    def stepped(self, fields: Mapping[str, Any]) -> Step:
        why = f" ({fields['reason']})" if fields["reason"] else ""
        return Step("stepped", f"{fields['action']}: {fields['node']}{why}", fields)

    def failed(self, fields: Mapping[str, Any]) -> Step:
        return Step("failed", f"failed: {fields['message']}", fields)


_TOLD: dict[str, Callable[[_Tracing, Mapping[str, Any]], Step | None]] = {
    "Pieces": _Tracing.pieces,
    "PassagesFound": _Tracing.passages,
    "ReadThrough": _Tracing.read_through,
    "Chosen": _Tracing.chosen,
    "Resumed": _Tracing.resumed,
    "Conflict": _Tracing.conflict,
    "Settled": _Tracing.settled,
    "Stepped": _Tracing.stepped,
    "PartFailed": _Tracing.failed,
    "DocumentFailed": _Tracing.failed,
}


def _is_top(one: Step | str, made: Mapping[str, Step]) -> bool:
    return isinstance(one, Step) or one in made


def _in_order(steps: Sequence[Step]) -> list[Step]:
    """Readings that follow one another, in the order of their pieces: side by side they end as they like."""
    ordered: list[Step] = []
    readings: list[Step] = []
    for step in [*steps, None]:
        if step is not None and step.kind == "read" and step.pieces:
            readings.append(step)
            continue
        ordered += sorted(readings, key=lambda reading: reading.pieces)
        readings.clear()
        if step is not None:
            ordered.append(step)
    return ordered


def _tree(steps: Sequence[Step], depth: int, width: int) -> Iterator[str]:
    for step in _folded(steps):
        yield from _wrapped(step.text, "  " * depth + "- ", width)
        yield from _tree(step.children, depth + 1, width)


def _folded(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, with one for those neighbours that read consecutive pieces and found nothing."""
    waiting: list[Step] = []
    for step in [*steps, None]:
        follows = step is not None and step.nothing and len(step.pieces) > 0
        if follows and step is not None and (not waiting or step.pieces[0] == waiting[-1].pieces[-1] + 1):
            waiting.append(step)
            continue
        if len(waiting) > 1:
            pieces = tuple(number for one in waiting for number in one.pieces)
            pages = tuple(sorted({page for one in waiting for page in one.pages}))
            yield Step("read", f"{_where(pieces, pages, len(pieces))}: nothing", pieces=pieces, pages=pages)
        else:
            yield from waiting
        waiting = [step] if follows and step is not None else []
        if step is not None and not follows:
            yield step


def _wrapped(text: str, prefix: str, width: int) -> list[str]:
    # What a model or a document says may hold anything, line breaks and control characters too.
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    room = max(width, len(prefix) + 20)
    return textwrap.wrap(plain, room, initial_indent=prefix, subsequent_indent=" " * len(prefix)) or [prefix]


def _where(pieces: Sequence[int], pages: Sequence[int], places: int) -> str:
    if pieces:
        what = f"piece {pieces[0]}" if len(pieces) == 1 else f"pieces {_ranges(pieces)}"
    else:
        what = _count(places, "passage") if places else ""
    return f"{what} ({_pages(pages)})" if what and pages else what


def _evidence(fields: Mapping[str, Any]) -> str:
    quotes = _count(fields["quotes"], "quote") if fields["quotes"] else "no quote"
    return f"{quotes} on {_pages(fields['pages'])}" if fields["pages"] else quotes


def _pages(numbers: Sequence[int]) -> str:
    if not numbers:
        return "no page"
    return f"page {numbers[0]}" if len(numbers) == 1 else f"pages {_ranges(numbers)}"


def _ranges(numbers: Sequence[int]) -> str:
    """`3-5, 9`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number <= parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, dict.fromkeys(part))) for part in parts)


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'s'[: number != 1]}"


def _place(given: Any) -> Place:
    document_id, start, end = given
    return document_id, start, end
