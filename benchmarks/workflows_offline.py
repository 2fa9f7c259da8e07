"""Every workflow with the offline reader, on real documents: what it quotes, beside the simplest ways to quote.

    python benchmarks/workflows_offline.py [--limit 4] [--minutes 10] [--sets literaryqa,qmsum] [--workflows retrieve]

Sets: novels (literaryqa), meetings (qmsum), papers (covid_qa), paragraphs of ten multi-hop questions joined to one
document (musique), filings (financebench). For each question:
"quoted": a quote that is shown contains a gold answer (`reader_cases.is_hit`; a reference in somebody's own words:
80 % of its stems). "evidence": share of the gold paragraphs, turns or pages that are cited. "F1": of the best claim's
tokens against the best reference. "characters": length of the quotes, since whoever shows more hits more.
Baselines: how the document begins (600 characters), and the best passage of the search, whole.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from lcdoc.benchmarks.reader_cases import DATA, covid_qa, document_of, is_hit
from lcdoc.documents import Document, Span, load
from lcdoc.documents.text import normalise
from lcdoc.memory import Library
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.readers import OfflineReaders
from lcdoc.workflows.registry import make, names
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import run

LEAD_CHARACTERS = 600
JOINED_QUESTIONS = 10
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Case:
    """A question with its gold answers (see `is_hit`), references for F1, and spans that hold the evidence."""

    document: Document
    question: str
    golds: tuple[str, ...]
    references: tuple[str, ...]
    evidence: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Shown:
    """What somebody who asked gets to see."""

    claims: tuple[str, ...]
    quotes: tuple[str, ...]
    spans: tuple[Span, ...]
    seconds: float


# --- sets ------------------------------------------------------------------------------------------------------------


def literaryqa() -> Iterator[Case]:
    """Novels as text files; a document's questions follow each other."""
    rows = (DATA / "literaryqa/books_available.tsv").read_text(encoding="utf-8").splitlines()[1:]
    files = {row.split("\t")[0]: row.split("\t")[2] for row in rows}
    for line in (DATA / "literaryqa/validation.jsonl").read_text(encoding="utf-8").splitlines():
        book = json.loads(line)
        if book["gutenberg_id"] not in files:
            continue
        document = load(DATA / files[book["gutenberg_id"]])
        for asked in book["qas"]:
            references = tuple(asked["answers"])
            yield Case(document, asked["question"], tuple(f"~{text}" for text in references), references)


def qmsum() -> Iterator[Case]:
    """Meetings, a paragraph for each turn; the evidence is every turn of the gold ranges."""
    for number, line in enumerate(gzip.decompress((DATA / "qmsum/val.jsonl.gz").read_bytes()).decode().splitlines()):
        meeting = json.loads(line)
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        document = document_of(f"meeting {number}", turns)
        spans = _paragraph_spans(document, turns)
        for asked in meeting["specific_query_list"]:
            ranges = [(int(first), int(last)) for first, last in asked["relevant_text_span"]]
            evidence = [Span(spans[first].start, spans[min(last, len(spans) - 1)].end) for first, last in ranges]
            # Summaries in the annotator's words: no quote has them.
            yield Case(document, asked["query"], (), (asked["answer"],), tuple(evidence))


def covid() -> Iterator[Case]:
    """Papers; the golds are spans of them."""
    for document, questions in covid_qa():
        for question, golds, _ in questions:
            yield Case(document, question, golds, golds)


def musique() -> Iterator[Case]:
    """Two to four hops over paragraphs of ten questions, each paragraph once; the evidence is those that support."""
    rows = [
        json.loads(line) for line in gzip.decompress((DATA / "multihop/musique.jsonl.gz").read_bytes()).splitlines()
    ]
    for start in range(0, len(rows), JOINED_QUESTIONS):
        together = rows[start : start + JOINED_QUESTIONS]
        paragraphs = list(dict.fromkeys(_titled(part) for row in together for part in row["paragraphs"]))
        random.Random(start).shuffle(paragraphs)
        document = document_of(f"musique {start}", paragraphs)
        spans = dict(zip(paragraphs, _paragraph_spans(document, paragraphs), strict=True))
        for row in together:
            evidence = [spans[_titled(part)] for part in row["paragraphs"] if part["is_supporting"]]
            golds = (row["answer"], *row.get("answer_aliases", ()))
            yield Case(document, row["question"], golds, golds, tuple(evidence))


def _titled(part: dict) -> str:
    return f"{part['title']}. {part['paragraph_text']}"


def financebench() -> Iterator[Case]:
    """Filings; the evidence is the gold pages. Most answers are computed, so that a quote seldom has one."""
    by_name: dict[str, list[dict]] = defaultdict(list)
    for line in (DATA / "financebench/questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_name[row["doc_name"]].append(row)
    for name, rows in by_name.items():
        document = load(DATA / "financebench/pdfs" / f"{name}.pdf")
        for row in rows:
            numbers = {evidence["evidence_page_num"] for evidence in row["evidence"]}
            pages = [document.pages[number] for number in sorted(numbers) if number < len(document.pages)]
            spans = tuple(Span(page.start, page.end) for page in pages)
            yield Case(document, row["question"], (row["answer"],), (row["answer"],), spans)


def _paragraph_spans(document: Document, paragraphs: Sequence[str]) -> list[Span]:
    """Where each of the paragraphs of `document_of` stands."""
    spans: list[Span] = []
    position = 0
    for paragraph in paragraphs:
        length = len(normalise(paragraph).strip())
        spans.append(Span(position, position + length))
        position += length + 2
    if spans and spans[-1].end != len(document.text):
        raise ValueError(f"{document.name}: the paragraphs do not make up the text")
    return spans


SETS: dict[str, Callable[[], Iterator[Case]]] = {
    "literaryqa": literaryqa,
    "qmsum": qmsum,
    "covid_qa": covid,
    "musique": musique,
    "financebench": financebench,
}


def sample(name: str, limit: int) -> list[Case]:
    """`limit` cases of the set, two of each document, the same each time; reads documents until there are enough."""
    chosen: list[Case] = []
    of_document: list[Case] = []
    rng = random.Random(name)

    def take() -> None:
        chosen.extend(rng.sample(of_document, min(2, len(of_document))))
        of_document.clear()

    for case in SETS[name]():
        if of_document and case.document.id != of_document[0].document.id:
            take()
            if len(chosen) >= limit:
                return chosen[:limit]
        of_document.append(case)
    take()
    return chosen[:limit]


# --- scores ----------------------------------------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    """Words as the SQuAD scorer takes them."""
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in _ARTICLES]


def token_f1(text: str, reference: str) -> float:
    """Harmonic mean of precision and recall over tokens."""
    given, wanted = Counter(tokens(text)), Counter(tokens(reference))
    common = sum((given & wanted).values())
    if not common:
        return 0.0
    return 2 * common / (sum(given.values()) + sum(wanted.values()))


def scores(case: Case, shown: Shown) -> dict[str, float]:
    """The figures of one answer; `quoted` and `evidence` only where the set has any gold."""
    figures = {
        "answered": float(bool(shown.quotes)),
        "F1": max((token_f1(claim, gold) for claim in shown.claims for gold in case.references), default=0.0),
        "characters": float(sum(map(len, shown.quotes))),
        "s": shown.seconds,
    }
    if case.golds:
        figures["quoted"] = float(any(is_hit(quote, case.golds) for quote in shown.quotes))
    if case.evidence:
        figures["evidence"] = mean(any(span.overlaps(gold) for span in shown.spans) for gold in case.evidence)
    return figures


# --- who answers -----------------------------------------------------------------------------------------------------


class Desk:
    """A library of the documents, and all ways to answer from it."""

    def __init__(self, library: Library, embedder: Embedder) -> None:
        self.library = library
        self._readers = OfflineReaders(embedder, library.runs)
        self._search = Search(Index(library, embedder))
        self._chunker = Chunker()

    def add(self, document: Document) -> None:
        self.library.add(document, self._chunker.chunks(document), recipe=self._chunker.recipe)

    async def answered(self, way: str, case: Case) -> Shown:
        """What `way`, a workflow or a baseline, shows for the question."""
        started = time.monotonic()
        if way == "beginning":
            spans = [Span(0, min(LEAD_CHARACTERS, len(case.document.text)))]
        elif way == "best passage":
            found, _ = await self._search.best(case.question, [case.document], 1)
            spans = [passage.span for passage in found]
        else:
            workflow = make(way, self.library, self._search, self._readers)
            answer = await run(workflow, case.question, [case.document])
            return of_answer(answer, time.monotonic() - started)
        texts = tuple(span.of(case.document.body) for span in spans)
        return Shown(texts, texts, tuple(spans), time.monotonic() - started)


def of_answer(answer: Answer, seconds: float) -> Shown:
    citations = list(dict.fromkeys(citation for claim in answer.claims for citation in claim.citations))
    return Shown(
        tuple(claim.text for claim in answer.claims),
        tuple(citation.quote for citation in citations),
        tuple(part for citation in citations for part in citation.parts),
        seconds,
    )


BASELINES = ("beginning", "best passage")
COLUMNS = ("answered", "quoted", "evidence", "F1", "characters", "s")


async def measure(
    sets: Sequence[str], ways: Sequence[str], limit: int, deadline: float, embedder: Embedder
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """The figures of every answer, by set and way. Questions not begun before the deadline are left out."""
    figures: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        desk = Desk(library, embedder)
        for name in sets:
            for case in sample(name, limit):
                if time.monotonic() > deadline:
                    print(f"out of time in {name}", file=sys.stderr)
                    break
                desk.add(case.document)
                for way in ways:
                    shown = await desk.answered(way, case)
                    figures[name, way].append(scores(case, shown))
                    print(f"{name}: {way}: {case.question[:60]} {shown.seconds:.1f} s", file=sys.stderr)
    return figures


def table(figures: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Markdown: a row for each set and way."""
    lines = [f"| set | questions | | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 3) + "|"]
    before = ""
    for (name, way), rows in figures.items():
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in rows if column in row]
            digits = 0 if column == "characters" else 1 if column == "s" else 2
            cells.append(f"{mean(values):,.{digits}f}" if values else "")
        first = f"{name} | {len(rows)}" if name != before else " | "
        lines.append(f"| {first} | {way} | {' | '.join(cells)} |")
        before = name
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--workflows", default=",".join(names()))
    parser.add_argument("--limit", type=int, default=4, help="questions of each set")
    parser.add_argument("--minutes", type=float, default=10, help="no question is begun after them")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there; set LCDOC_DATA to the folder with the data sets")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    ways = [*BASELINES, *arguments.workflows.split(",")]
    deadline = time.monotonic() + 60 * arguments.minutes
    print(table(asyncio.run(measure(arguments.sets.split(","), ways, arguments.limit, deadline, load_embedder()))))


if __name__ == "__main__":
    main()
