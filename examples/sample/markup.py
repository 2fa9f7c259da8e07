"""Reads the small markup in which the handbook is written (`text/*.md`).

It is Markdown with one addition. A blank line ends a block. A block is one of:

    # Chapter title               starts a chapter; in a file named `00-...` it is front matter
    ## Section title              a section
    - item  /  1. item            a list; continuation lines are indented
    | cell | cell |               a table; the second line is the rule; a following `Table: ...` block is its caption
    [^name]: text                 a footnote, in the chapter that calls it
    <!-- columns: 2 -->           the rest of the chapter is set in two columns
    anything else                 a paragraph

Inside a block: *italic*, **bold**, [^name] calls a footnote, and a backslash makes the next character plain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sample.book import Block, Book, Chapter, Columns, Heading, Listing, Paragraph, Run, Runs, Table

_TOKEN = re.compile(r"\\(?P<plain>.)|(?P<mark>\*\*|\*)|\[\^(?P<note>[a-z]+)\]|(?P<text>[^\\*\[]+|\[)", re.S)
_ITEM = re.compile(r"^(?:- |\d+\. )", re.M)
_NOTE = re.compile(r"\[\^([a-z]+)\]: (.*)", re.S)
_COLUMNS = re.compile(r"<!-- columns: (\d) -->")


class MarkupError(ValueError):
    """The source breaks a rule of the markup; the message names the file and the block."""


def read_book(folder: Path) -> Book:
    """The book in `folder`, whose `*.md` files are read in order of their names. Raises MarkupError."""
    chapters: list[Chapter] = []
    tables = 0
    for path in sorted(folder.glob("*.md")):
        for source in re.split(r"^(?=# )", path.read_text("utf-8"), flags=re.M):
            if source.strip():
                chapter, tables = _chapter(path, source, tables)
                chapters.append(chapter)
    return Book(tuple(chapters))


@dataclass
class _Notes:
    """The footnotes of one chapter: names by order of their first call, texts as they are found."""

    where: str
    order: list[str] = field(default_factory=list)
    texts: dict[str, Runs] = field(default_factory=dict)

    def call(self, name: str) -> int:
        if name in self.order:
            raise MarkupError(f"{self.where}: footnote {name} is called twice")
        self.order.append(name)
        return len(self.order) - 1

    def finish(self) -> tuple[Runs, ...]:
        if set(self.order) != set(self.texts):
            odd = sorted(set(self.order) ^ set(self.texts))
            raise MarkupError(f"{self.where}: footnotes without a call or a text: {', '.join(odd)}")
        return tuple(self.texts[name] for name in self.order)


def _chapter(path: Path, source: str, tables: int) -> tuple[Chapter, int]:
    first, *parts = [part for part in re.split(r"\n\s*\n", source.strip()) if part.strip()]
    title = first.removeprefix("# ").strip()
    notes = _Notes(f"{path.name}, {title}")
    blocks: list[Block] = []
    for part in parts:
        if match := _NOTE.fullmatch(part):
            notes.texts[match[1]] = _runs(_unwrap(match[2]), notes)
        elif part.startswith("Table: "):
            table = blocks[-1] if blocks else None
            if not isinstance(table, Table):
                raise MarkupError(f"{notes.where}: a caption without a table: {part}")
            tables += 1
            blocks[-1] = Table(table.header, table.rows, _unwrap(part).removeprefix("Table: "), tables)
        else:
            blocks.append(_block(part, notes))
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return Chapter(title, slug, path.name.startswith("00"), tuple(blocks), notes.finish()), tables


def _block(part: str, notes: _Notes) -> Block:
    if part.startswith("## "):
        return Heading(_unwrap(part).removeprefix("## "))
    if match := _COLUMNS.fullmatch(part.strip()):
        return Columns(int(match[1]))
    if part.startswith("|"):
        header, rule, *rows = part.splitlines()
        if set(rule) - set("|-: "):
            raise MarkupError(f"{notes.where}: the second line of a table must be its rule: {rule}")
        table = Table(_cells(header, notes), tuple(_cells(row, notes) for row in rows), "", None)
        if any(len(row) != len(table.header) for row in table.rows):
            raise MarkupError(f"{notes.where}: rows of different length under {header}")
        return table
    if _ITEM.match(part):
        items = [_ITEM.sub("", item, count=1) for item in re.split(r"\n(?=- |\d+\. )", part)]
        return Listing(tuple(_runs(_unwrap(item), notes) for item in items), part[0].isdigit())
    return Paragraph(_runs(_unwrap(part), notes))


def _cells(row: str, notes: _Notes) -> tuple[Runs, ...]:
    return tuple(_runs(cell.strip(), notes) for cell in row.strip().strip("|").split("|"))


def _unwrap(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _runs(text: str, notes: _Notes) -> Runs:
    return tuple(_merge(_pieces(text, notes)))


def _pieces(text: str, notes: _Notes) -> Iterator[Run]:
    bold = italic = False
    for match in _TOKEN.finditer(text):
        if match["mark"] == "**":
            bold = not bold
        elif match["mark"] == "*":
            italic = not italic
        elif match["note"]:
            yield Run("", bold, italic, notes.call(match["note"]))
        else:
            yield Run(match["plain"] or match["text"], bold, italic)
    if bold or italic:
        raise MarkupError(f"{notes.where}: a face is left open: {text[:60]}")


def _merge(pieces: Iterator[Run]) -> Iterator[Run]:
    """Join neighbours of one face; a run that calls a note keeps the text before the call."""
    last: Run | None = None
    for run in pieces:
        if last and last.note is None and (last.bold, last.italic) == (run.bold, run.italic):
            last = Run(last.text + run.text, run.bold, run.italic, run.note)
            continue
        if last:
            yield last
        last = run
    if last:
        yield last
