"""The book as data: chapters of blocks, blocks of runs. Every format is written from this and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Handbook of the Quill Lights and Ferries"
SUBTITLE = "Seventh edition, with the account of the year 2018 and the report on the stranding of the Bittern"
PUBLISHER = "The Quill Conservancy, Harrowstaithe"
EDITION = "Seventh edition, 2019"
DATE = "2019-03-01"
IMPRINT = (
    "In force from noon on 1 March 2019.",
    "This handbook is a sample document. The river Quill, its towns, lights, ferries and people are invented, and "
    "any resemblance to a real undertaking is an accident. It was written for lcdoc and is under the same licence.",
)


@dataclass(frozen=True)
class Run:
    """Characters in one face. Where `note` is set, a footnote is called after them (its index in `Chapter.notes`)."""

    text: str
    bold: bool = False
    italic: bool = False
    note: int | None = None


Runs = tuple[Run, ...]


@dataclass(frozen=True)
class Heading:
    """A section's title, inside a chapter."""

    title: str


@dataclass(frozen=True)
class Paragraph:
    runs: Runs


@dataclass(frozen=True)
class Listing:
    items: tuple[Runs, ...]
    ordered: bool


@dataclass(frozen=True)
class Table:
    """A table with a header row. `number` counts through the whole book; a table without a caption has none."""

    header: tuple[Runs, ...]
    rows: tuple[tuple[Runs, ...], ...]
    caption: str
    number: int | None


@dataclass(frozen=True)
class Columns:
    """From here to the end of the chapter the text is set in `count` columns, where the format knows columns."""

    count: int


Block = Heading | Paragraph | Listing | Table | Columns


@dataclass(frozen=True)
class Chapter:
    """A chapter, a front-matter piece (`front`, numbered in roman) or an appendix."""

    title: str
    slug: str
    front: bool
    blocks: tuple[Block, ...]
    notes: tuple[Runs, ...]

    @property
    def sections(self) -> tuple[str, ...]:
        return tuple(block.title for block in self.blocks if isinstance(block, Heading))


@dataclass(frozen=True)
class Book:
    chapters: tuple[Chapter, ...]

    @property
    def titles(self) -> tuple[str, ...]:
        """Every chapter and section title, in order."""
        return tuple(title for chapter in self.chapters for title in (chapter.title, *chapter.sections))


def plain(runs: Runs) -> str:
    """The characters alone, without faces and footnote calls."""
    return "".join(run.text for run in runs)
