"""Finds the answers to the questions in the finished PDF, so that no page number is ever typed by hand."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdfium2

from sample.book import Book, Chapter, Columns, Paragraph, Table, plain

_DROPPED = re.compile(r"[\s\-\u2010\u2011\u00ad\ufffe\x02]+")
# What pdfium makes of a hyphen at a line end, or the hyphen and the line end themselves.
_BROKEN = re.compile(r"[\ufffe\x02]|-\s*\n")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


class QuestionError(ValueError):
    """A question's evidence is not where its kind says it is; the message names the question."""


def make_questions(book: Book, pdf: bytes, source: Path) -> str:
    """The questions of `source` (TOML) as JSON, each with the page on which its answer begins and its evidence lies."""
    asked = tomllib.loads(source.read_text("utf-8"))["question"]
    document = pypdfium2.PdfDocument(pdf)
    texts = [page.get_textpage().get_text_range() for page in document]
    labels = [document.get_page_label(index) for index in range(len(document))]
    document.close()
    found = [_find(number, item, book, texts, labels) for number, item in enumerate(asked, 1)]
    return json.dumps({"document": "handbook", "questions": found}, indent=1, ensure_ascii=False) + "\n"


def squeeze(text: str) -> str:
    """`text` without white space and hyphens, in lower case with straight quotes: how two texts are compared."""
    return _DROPPED.sub("", unicodedata.normalize("NFKC", text).translate(_QUOTES)).lower()


def _find(number: int, item: dict[str, str], book: Book, texts: list[str], labels: list[str]) -> dict[str, Any]:
    kind, question = item["kind"], item["question"]
    found: dict[str, Any] = {"id": f"q{number:02}", "kind": kind, "question": question}
    if "answer" not in item:
        return found | {"answer": None, "evidence": None, "page": None, "label": None, "evidence_pages": []}
    answer, evidence = item["answer"], item["evidence"]
    if answer not in evidence:
        raise QuestionError(f"{question} The answer is not a part of the evidence")
    first, split = _locate(question, squeeze(evidence), texts)
    pages = [first] if split is None else [first, first + 1]
    begins = squeeze(evidence).index(squeeze(answer))
    page = pages[0] if split is None or begins < split else pages[1]
    if not _kind_holds(kind, book, evidence, len(pages), _is_broken(answer, texts[page])):
        raise QuestionError(f"{question} The evidence is not of the kind {kind} (pages {pages})")
    return found | {
        "answer": answer,
        "evidence": evidence,
        "page": page + 1,
        "label": labels[page],
        "evidence_pages": [{"page": index + 1, "label": labels[index]} for index in pages],
    }


def _locate(question: str, evidence: str, texts: list[str]) -> tuple[int, int | None]:
    """The page that holds `evidence`, or the page it begins on and how much of it stands there."""
    pages = [squeeze(text) for text in texts]
    whole: list[tuple[int, int | None]] = [(index, None) for index, text in enumerate(pages) if evidence in text]
    if not whole:
        whole = [
            (index, split)
            for index in range(len(pages) - 1)
            for split in range(8, len(evidence) - 4)
            if evidence[:split] in pages[index] and evidence[split:] in pages[index + 1]
        ]
    if len(whole) != 1:
        raise QuestionError(f"{question} The evidence is found in {len(whole)} places, not in one")
    return whole[0]


def _kind_holds(kind: str, book: Book, evidence: str, pages: int, broken: bool) -> bool:
    """Whether the evidence is what `kind` says: the questions are there to test just that."""
    wanted = squeeze(evidence)
    checks: dict[str, Callable[[], bool]] = {
        "prose": lambda: True,
        "contradiction": lambda: True,
        "hyphenated": lambda: broken,
        "table": lambda: any(wanted in row for chapter in book.chapters for row in _rows(chapter)),
        "footnote": lambda: any(wanted in note for chapter in book.chapters for note in _notes(chapter)),
        "two-column": lambda: any(wanted in text for chapter in book.chapters for text in _in_columns(chapter)),
        "page-break": lambda: pages == 2,
    }
    return kind in checks and checks[kind]() and (pages == 1 or kind == "page-break")


def _is_broken(answer: str, page: str) -> bool:
    """Whether `answer` is hyphenated at a line end of `page`."""
    letters = r"[\ufffe\x02-]?\s*".join(map(re.escape, _DROPPED.sub("", answer)))
    return any(_BROKEN.search(match[0]) for match in re.finditer(letters, page))


def _rows(chapter: Chapter) -> list[str]:
    tables = [block for block in chapter.blocks if isinstance(block, Table)]
    return [squeeze("".join(map(plain, row))) for table in tables for row in table.rows]


def _notes(chapter: Chapter) -> list[str]:
    return [squeeze(plain(note)) for note in chapter.notes]


def _in_columns(chapter: Chapter) -> list[str]:
    """The paragraphs of a chapter that stand in columns."""
    start = next((index for index, block in enumerate(chapter.blocks) if isinstance(block, Columns)), None)
    blocks = [] if start is None else chapter.blocks[start:]
    return [squeeze(plain(block.runs)) for block in blocks if isinstance(block, Paragraph)]
