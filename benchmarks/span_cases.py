"""The questions that the span reader's weights are fitted to, and those it is measured on, with whole documents.

Of the sets that it is trained on, the parts of `lcdoc.evaluation.parts`; of others, the halves of `reader_cases`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from lcdoc.benchmarks.reader_cases import (
    CachedEmbedder,
    Case,
    Finder,
    Items,
    covid_qa,
    document_of,
    fairytaleqa,
    ohr_bench,
    policyqa,
    squad,
    tatqa,
)
from lcdoc.benchmarks.span_examples import readings
from lcdoc.evaluation.parts import Part, part_of

DOCUMENTS = 12
"""Of sets that are not trained on, at most."""


def nq() -> Items:
    """The passages of a part as one document, and the questions they answer."""
    items: Items = []
    for part in ("train", "tune", "test"):
        own = [reading for reading in readings(["nq"]) if reading.part == part]
        document = document_of(f"nq {part}", list(dict.fromkeys(reading.passages[0] for reading in own)))
        items.append((document, [(reading.question, reading.golds, "answerable") for reading in own]))
    return items


SETS: dict[str, tuple[Callable[[], Items], int]] = {
    # loader, answerable questions a document at most (adversarial: half as many, easy: a quarter)
    "squad": (squad, 50),
    "nq": (nq, 80),
    "tatqa": (tatqa, 8),
    "covid_qa": (covid_qa, 16),
    "ohr_bench": (ohr_bench, 6),
    "fairytaleqa": (fairytaleqa, 16),
    "policyqa": (policyqa, 10),
}


def part_of_case(case: Case) -> Part:
    """The part of a set that is trained on; of another, the half: policyqa is tested on alone."""
    name = case.document.source.path
    if case.dataset == "nq":
        return {"nq train": "train", "nq tune": "tune"}.get(name, "test")  # type: ignore[return-value]
    if case.dataset in {"squad", "covid_qa", "fairytaleqa"}:
        return part_of(case.dataset, name)
    return "test" if case.held_out or case.dataset == "policyqa" else "tune"


def cases_of(part: Part, names: Sequence[str]) -> Iterator[Case]:
    """The questions of a part: the same each time."""
    strangers = [question for _, asked in squad() for question, _, _ in asked]
    for name in names:
        loader, most = SETS[name]
        rng = random.Random(f"span reader {name}")
        items = [item for item in loader() if part_of_case(Case(name, "", item[0], "")) == part]
        if name in {"tatqa", "ohr_bench", "policyqa"}:
            items = rng.sample(items, min(DOCUMENTS, len(items)))
        for document, questions in items:
            for kind, number in (("answerable", most), ("adversarial", most // 2)):
                own = [question for question in questions if question[2] == kind]
                for question, golds, _ in rng.sample(own, min(number, len(own))):
                    yield Case(name, kind, document, question, golds)
            others = [question for other, asked in items if other is not document for question, _, _ in asked]
            alike = name in {"tatqa", "policyqa", "nq"}
            for question in rng.sample(strangers if alike else others or strangers, max(2, most // 4)):
                yield Case(name, "easy", document, question)


def with_finder(part: Part, names: Sequence[str], embedder: CachedEmbedder) -> Iterator[tuple[Case, Finder]]:
    """The questions of a part, each with what finds passages in its document."""
    finder: tuple[str, Finder] | None = None
    for case in cases_of(part, names):
        if finder is None or finder[0] != case.document.id:
            finder = case.document.id, Finder(case.document, embedder)
            embedder.save()
        yield case, finder[1]
    embedder.save()
