"""Finding passages by their words: BM25 over an FTS5 table.

The table stores no text (`content=''`); its row ids are chunk ids. What goes in is the chunk's text made plain by
`plain`: function words dropped, digits joined, and scripts written without spaces cut into single characters, which a
question then looks for as phrases of two. FTS5 folds case, takes accents off and stems (Porter).

A question is never handed to FTS5 as it is: its words are quoted one by one, so nothing in it is an operator. The
score is BM25 (Robertson and Zaragoza 2009) over the passages searched, so that what else the library holds does not
change an answer, plus the same for pairs of neighbouring words: a passage that has them side by side is better
(term dependence: Metzler and Croft 2005).
"""

from __future__ import annotations

import heapq
import json
import math
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lcdoc.documents import Document
from lcdoc.retrieval.passages import Chunk

ANALYSIS = 1
"""Number of the rules in `plain` and `SCHEMA`: rows made by other rules cannot be removed, only rebuilt."""

SCHEMA = (
    "CREATE VIRTUAL TABLE passages USING fts5(text, heading, content='',"
    " tokenize=\"porter unicode61 remove_diacritics 2 categories 'L* N* Co Mc Mn'\")"
)

HEADING_WEIGHT = 0.5
"""What a word in a chunk's headings counts, one in its text being 1."""
PAIR_WEIGHT = 0.4
"""What two neighbouring words of the question, found side by side, count beside the words alone."""
MAX_TERMS = 64
"""Words of a question that are looked up; a question of more is cut there."""
MAX_EXACT = 20_000
"""Passages up to which every match is scored; of more, only the best by FTS5's own ranking."""
_SHORTLIST = 2_000

# Dropped on both sides: they say nothing, and without them "shares of stock" has its two words side by side. In
# capitals they may be names (IT, A), and stay.
_FUNCTION_WORDS: Final = (
    "a an and are as at be been but by for from had has have if in into is it its of on or s so such t than that the"
    " their them then there these they this those to was were which will with would"
)
# Dropped from questions only: the words by which one asks.
_ASKING_WORDS: Final = (
    "about according all also am any being can could did do does doing done during each he her hers him his how i"
    " may me might must my our ours shall she should some under us we what when where who whom whose why you your yours"
)


def _as_written(words: str) -> frozenset[str]:
    """Lower case and capitalised; a single letter in lower case only."""
    return frozenset(form for word in words.split() for form in (word, word.title() if word[1:] else word))


_FUNCTION = _as_written(_FUNCTION_WORDS)
_NOT_TELLING = _FUNCTION | _as_written(_ASKING_WORDS)
# Each begins with a literal: the engine finds those many times faster.
_DIGIT_GROUP = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_FISCAL_YEAR = re.compile(r"FY(?<=\bFY) ?'?(?:(\d{4})|(\d{2}))\b")
# Thai to Myanmar, Khmer, kana, Han, Hangul, Han beyond the basic plane.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")


def plain(text: str) -> str:
    """`text` as it is indexed: without function words, digits joined, unspaced scripts one character at a time."""
    text = _told(text)
    return text if text.isascii() else _UNSPACED_RUN.sub(lambda run: f" {' '.join(run[0])} ", text)


def _told(text: str) -> str:
    """What both sides of a search go through, so that they agree. `FY19` becomes `2019`."""
    text = _FISCAL_YEAR.sub(lambda year: f" {year[1] or '20' + year[2]} ", text)
    text = _DIGIT_GROUP.sub("", text).replace("'s ", " ").replace("\u2019s ", " ")
    return " ".join([word for word in text.split() if word not in _FUNCTION])


def add(connection: sqlite3.Connection, first_id: int, document: Document, chunks: Sequence[Chunk]) -> None:
    """Index a document's chunks under consecutive ids. Belongs inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO passages (rowid, text, heading) VALUES (?, ?, ?)", _rows(first_id, document, chunks)
    )


def remove(connection: sqlite3.Connection, first_id: int, document: Document, chunks: Sequence[Chunk]) -> None:
    """Undo `add`; the arguments must be the same, for the table keeps no text that would tell it what to remove."""
    connection.executemany(
        "INSERT INTO passages (passages, rowid, text, heading) VALUES ('delete', ?, ?, ?)",
        _rows(first_id, document, chunks),
    )


def _rows(first_id: int, document: Document, chunks: Sequence[Chunk]) -> Iterator[tuple[int, str, str]]:
    body = document.body
    for chunk_id, chunk in enumerate(chunks, first_id):
        yield chunk_id, plain(chunk.span.of(body)), plain(" / ".join(chunk.heading_path))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a question looks for, as FTS5 expressions: each a quoted word or phrase, none twice."""

    words: tuple[str, ...]
    pairs: tuple[str, ...]


def terms_of(question: str) -> Terms:
    """The words of a question and its pairs of neighbours; asking words count only where there is nothing else."""
    words: list[str] = []
    pairs: list[str] = []
    previous = ""
    tokens = _tokens(_told(question)) or _tokens(question)
    telling = [token for token in tokens if token not in _NOT_TELLING] or tokens
    for token in telling:
        if _UNSPACED_RUN.match(token):
            # Two characters at a time; neighbours overlap already, so there is no pair to be made of them.
            words += [" ".join(token[at : at + 2]) for at in range(max(1, len(token) - 1))]
            previous = ""
        else:
            words.append(token)
            if previous and previous != token:
                pairs.append(f"{previous} {token}")
            previous = token
    return Terms(_quoted(words), _quoted(pairs))


def _tokens(text: str) -> list[str]:
    """Runs of letters, digits and combining marks (what the table's tokenizer calls a token) in question order.

    A run of an unspaced script is a token of its own.
    """
    text = _UNSPACED_RUN.sub(r" \g<0> ", text)
    return "".join(
        character if character.isalnum() or unicodedata.category(character) in {"Mn", "Mc", "Co"} else " "
        for character in text
    ).split()


def _quoted(terms: list[str]) -> tuple[str, ...]:
    return tuple(f'"{term}"' for term in list(dict.fromkeys(terms))[:MAX_TERMS])


@dataclass(frozen=True, slots=True)
class Matches:
    """Passages that have words of the question: chunk id and score, best first.

    `most` is the score of a passage that would have every word of the question countless times, so that `score / most`
    is the share of what was asked for that a passage has.
    """

    scores: tuple[tuple[int, float], ...]
    most: float


def search(connection: sqlite3.Connection, question: str, scope: Sequence[range], limit: int) -> Matches:
    """The best `limit` passages for `question` among the chunk ids in `scope`. Any string is a valid question.

    A question without a single letter or digit matches nothing.
    """
    terms = terms_of(question)
    blocks = _merged(scope)
    total = sum(map(len, blocks))
    scores: dict[int, float] = {}
    most = 0.0
    shortlist = _shortlist(connection, terms, blocks) if total > MAX_EXACT else None
    for expressions, weight in ((terms.words, 1.0), (terms.pairs, PAIR_WEIGHT)):
        for expression in expressions:
            rows = (
                _saturations(connection, expression, blocks)
                if shortlist is None
                else _saturations_among(connection, expression, shortlist)
            )
            if not rows:
                # A word that is nowhere is missed by every passage; a pair that is nowhere tells nothing more.
                most += _idf(0, total) if weight == 1.0 else 0.0
                continue
            # Of a shortlist the share that matches says little; there the whole table's frequency is the better guess.
            idf = rows[0][2] if shortlist is not None else _idf(len(rows), total)
            most += weight * idf
            for chunk_id, saturation, _ in rows:
                scores[chunk_id] = scores.get(chunk_id, 0.0) + weight * idf * saturation
    best = heapq.nsmallest(limit, scores.items(), key=lambda item: (-item[1], item[0]))
    return Matches(tuple(best), most)


def _merged(scope: Sequence[range]) -> list[range]:
    """The same ids in as few ranges as possible, ascending."""
    blocks: list[range] = []
    for block in sorted((block for block in scope if block), key=lambda block: block.start):
        if blocks and block.start <= blocks[-1].stop:
            blocks[-1] = range(blocks[-1].start, max(blocks[-1].stop, block.stop))
        else:
            blocks.append(block)
    return blocks


def _idf(matching: int, total: int) -> float:
    return math.log(1 + (total - matching + 0.5) / (matching + 0.5))


# FTS5's bm25() is -idf * tf (k + 1) / (tf + K), its idf taken over the whole table. With an immense weight on every
# column the fraction becomes (k + 1) = 2.2 and leaves the idf; the quotient of the two is the saturation tf / (tf + K).
_SATURATION = (
    f"SELECT rowid, bm25(passages, 1.0, {HEADING_WEIGHT}) / bm25(passages, 1e12, 1e12),"
    " bm25(passages, 1e12, 1e12) / -2.2 FROM passages WHERE passages MATCH ?"
)
_Row = tuple[int, float, float]


def _saturations(connection: sqlite3.Connection, expression: str, blocks: Sequence[range]) -> list[_Row]:
    """(chunk id, saturation, idf over the whole table) of every passage in `blocks` that matches."""
    return [
        row
        for block in blocks
        for row in connection.execute(
            _SATURATION + " AND rowid BETWEEN ? AND ?", (expression, block.start, block.stop - 1)
        )
    ]


def _saturations_among(connection: sqlite3.Connection, expression: str, ids: str) -> list[_Row]:
    # The plus sign keeps SQLite from looking the ids up one by one.
    among = _SATURATION + " AND +rowid IN (SELECT value FROM json_each(?))"
    return connection.execute(among, (expression, ids)).fetchall()


def _shortlist(connection: sqlite3.Connection, terms: Terms, blocks: Sequence[range]) -> str:
    """The ids, as a JSON list, of the best passages by FTS5's own ranking."""
    if not terms.words:
        return "[]"
    best: list[tuple[float, int]] = []
    for block in blocks:
        best += connection.execute(
            "SELECT rank, rowid FROM passages WHERE passages MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rank LIMIT ?",
            (" OR ".join(terms.words), block.start, block.stop - 1, _SHORTLIST),
        ).fetchall()
    return json.dumps([chunk_id for _, chunk_id in heapq.nsmallest(_SHORTLIST, best)])
