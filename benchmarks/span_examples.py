"""Questions with the words that answer them, from the public sets of ../shared/data or $LCDOC_DATA.

Every set is parted by article, paper, story or page, never by question: see `lcdoc.evaluation.parts`. Trained
on are only sets whose licences allow weights to be passed on: squad (CC BY-SA 4.0), nq (Natural Questions, CC BY-SA
3.0), covid_qa (Apache 2.0), fairytaleqa (Apache 2.0), hotpot (CC BY-SA 4.0), musique (CC BY 4.0), 2wikimultihop (Apache
2.0). policyqa is made from a corpus for research only, and is only tested on.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcdoc.benchmarks.reader_cases import DATA, document_of
from lcdoc.documents.text import normalise
from lcdoc.evaluation.parts import Part, part_of
from lcdoc.retrieval.chunker import Chunker

TRAINED = ("squad", "nq", "covid_qa", "fairytaleqa", "hotpot", "musique", "2wikimultihop")
TESTED = (*TRAINED, "policyqa")


@dataclass(frozen=True, slots=True)
class Reading:
    """A question about one document, whose passages are `passages`.

    `answers` are (passage, start, end): character spans of those passages, one for each annotator, so that a span may
    be there twice. None where no passage answers. `golds` are the answers as they are written.
    """

    dataset: str
    document: str
    question: str
    passages: tuple[str, ...]
    home: int
    """Index of the passage that was asked about."""
    answers: tuple[tuple[int, int, int], ...]
    golds: tuple[str, ...]

    @property
    def part(self) -> Part:
        return part_of(self.dataset, self.document)


def readings(names: Iterable[str] = TRAINED) -> Iterator[Reading]:
    """All questions of these sets, in the order of their files. Raises FileNotFoundError where a set is not there."""
    loaders = {"squad": _squad, "nq": _nq, "covid_qa": _covid_qa, "fairytaleqa": _fairytaleqa, "policyqa": _policyqa}
    for name in names:
        yield from loaders[name]() if name in loaders else _multihop(name)


def _squad() -> Iterator[Reading]:
    """v1.1, and what v2.0 adds to it: its questions without an answer."""
    extra: dict[str, list[dict[str, Any]]] = {}
    for article in json.loads((DATA / "squad/dev-v2.0.json").read_bytes())["data"]:
        for paragraph in article["paragraphs"]:
            impossible = [question for question in paragraph["qas"] if question["is_impossible"]]
            extra.setdefault(normalise(paragraph["context"]), []).extend(impossible)
    for article in json.loads((DATA / "squad/dev-v1.1.json").read_bytes())["data"]:
        passages = tuple(normalise(paragraph["context"]) for paragraph in article["paragraphs"])
        for home, paragraph in enumerate(article["paragraphs"]):
            for question in [*paragraph["qas"], *extra.pop(passages[home], [])]:
                golds = tuple(normalise(answer["text"]) for answer in question["answers"])
                places = [
                    (home, *place)
                    for answer in question["answers"]
                    if (place := _nearest(passages[home], normalise(answer["text"]), answer["answer_start"]))
                ]
                yield Reading(
                    "squad", article["title"], question["question"].strip(), passages, home, tuple(places), golds
                )


def _nq() -> Iterator[Reading]:
    """Questions people asked a search engine, each with the passage of Wikipedia that answers."""
    for line in _lines(DATA / "lost_in_the_middle/nq-open-oracle.jsonl.gz"):
        context = line["ctxs"][0]
        passage = normalise(context["text"])
        places = [(0, *place) for gold in line["answers"] if (place := _nearest(passage, normalise(gold), 0))]
        if places:
            # The longest of the forms that stand there: "July 1969", not "1969".
            best = max(places, key=lambda place: place[2] - place[1])
            golds = tuple(normalise(gold) for gold in line["answers"])
            yield Reading("nq", context["title"], f"{line['question']}?", (passage,), 0, (best,), golds)


def _covid_qa() -> Iterator[Reading]:
    for number, paper in enumerate(json.loads((DATA / "covid_qa/200421_covidQA.json").read_bytes())["data"]):
        paragraph = paper["paragraphs"][0]
        passages = _chunks(f"covid {number}", paragraph["context"].split("\n"))
        for question in paragraph["qas"]:
            golds = tuple(normalise(answer["text"]).strip() for answer in question["answers"])
            yield _placed("covid_qa", f"covid {number}", question["question"].strip(), passages, golds)


def _fairytaleqa() -> Iterator[Reading]:
    """Explicit questions. The answers are in an annotator's words, most of which stand in the story."""
    for story in sorted((DATA / "fairytaleqa/section-stories").rglob("*-story.csv")):
        name = story.name.removesuffix("-story.csv")
        for asked in sorted((DATA / "fairytaleqa/questions").rglob(f"{name}-questions.csv")):
            with story.open(encoding="utf-8", errors="replace") as lines:
                passages = _chunks(name, [row["text"] for row in csv.DictReader(lines)])
            with asked.open(encoding="utf-8", errors="replace") as lines:
                rows = [row for row in csv.DictReader(lines) if row.get("ex-or-im1") == "explicit"]
            for row in rows:
                golds = tuple(
                    answer for key in ("answer1", "answer4") if (answer := normalise(row.get(key) or "").strip(" ."))
                )
                yield _placed("fairytaleqa", name, row["question"].strip(), passages, golds)


def _multihop(name: str) -> Iterator[Reading]:
    """The supporting paragraphs together are the passage that answers; the others are the document's rest."""
    for row in _lines(DATA / f"multihop/{name}.jsonl.gz"):
        if name == "2wikimultihop" and "context" not in row:
            continue  # some have none
        if name == "musique":
            paragraphs = [(one["paragraph_text"], one["is_supporting"]) for one in row["paragraphs"]]
        else:
            support = {title for title, _ in row["supporting_facts"]}
            paragraphs = [
                (" ".join(" ".join(sentences).split()), title in support) for title, sentences in row["context"]
            ]
        together = "\n".join(normalise(text) for text, supports in paragraphs if supports)
        others = tuple(normalise(text) for text, supports in paragraphs if not supports)
        if not together:
            continue
        golds = tuple(normalise(gold) for gold in (row["answer"], *row.get("answer_aliases", ())))
        places = [(0, *place) for gold in golds[:1] if (place := _nearest(together, gold, 0))]
        identity = row.get("id") or row["_id"]
        yield Reading(name, identity, row["question"].strip(), (together, *others), 0, tuple(places), golds)


def _policyqa() -> Iterator[Reading]:
    for article in json.loads(gzip.decompress((DATA / "policyqa/dev.json.gz").read_bytes()))["data"]:
        passages = tuple(normalise(paragraph["context"]) for paragraph in article["paragraphs"])
        for home, paragraph in enumerate(article["paragraphs"]):
            for question in paragraph["qas"]:
                golds = tuple(normalise(answer["text"]) for answer in question["answers"])
                places = [(home, *place) for gold in golds if (place := _nearest(passages[home], gold, 0))]
                yield Reading("policyqa", article["title"], question["question"], passages, home, tuple(places), golds)


# --- places ----------------------------------------------------------------------------------------------------------


def _placed(dataset: str, document: str, question: str, passages: Sequence[str], golds: Sequence[str]) -> Reading:
    """The question with its golds looked for in all passages; the passage that has most words of the question wins."""
    words = Counter(re.findall(r"\w+", question.lower()))
    found = [
        (home, *place)
        for home, passage in enumerate(passages)
        for gold in golds
        if (place := _nearest(passage, gold, 0)) is not None
    ]
    if not found:
        return Reading(dataset, document, question, tuple(passages), 0, (), tuple(golds))
    home = max(
        dict.fromkeys(place[0] for place in found),
        key=lambda index: sum((words & Counter(re.findall(r"\w+", passages[index].lower()))).values()),
    )
    answers = tuple(place for place in found if place[0] == home)
    return Reading(dataset, document, question, tuple(passages), home, answers, tuple(golds))


def _nearest(text: str, answer: str, at: int) -> tuple[int, int] | None:
    """Where `answer` stands in `text` as whole words, nearest to offset `at`; None where it does not."""
    answer = answer.strip()
    if not answer:
        return None
    pattern = (
        rf"(?<!\w){re.escape(answer)}(?!\w)" if answer[0].isalnum() and answer[-1].isalnum() else re.escape(answer)
    )
    spans = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    return min(spans, key=lambda span: abs(span[0] - at), default=None)


def _chunks(name: str, paragraphs: Sequence[str]) -> tuple[str, ...]:
    """The passages that the package cuts a document of these paragraphs into."""
    document = document_of(name, paragraphs)
    return tuple(chunk.span.of(document.body) for chunk in Chunker().chunks(document))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
