"""How often extraction without a model is right, wrong, or says nothing, over fields with known values.

    python -m lcdoc.benchmarks.extract_quality                    # with the weights as they are
    python -m lcdoc.benchmarks.extract_quality --fit              # learn weights and a threshold from half of them
    python -m lcdoc.benchmarks.extract_quality --sets covers      # a set by itself; also squad, covid_qa, ...

A wrong value is worse than none: the threshold that is fitted is the lowest at which, on the documents used for it, so
many of the values given are right (`--precision`), those given for absent fields counted as wrong.
"""

from __future__ import annotations

import argparse
import math
import pickle
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lcdoc.agents import extract_weights
from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.extract_fields import Kind, Scalar
from lcdoc.agents.extract_findings import Finding
from lcdoc.agents.extract_offline import FEATURES, from_labels, may_be_given, phrases_of
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.benchmarks.extract_cases import FieldCase, chosen, covers, is_right, questions, tables
from lcdoc.memory import Library
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.workflows.extract_readings import RANKED_PASSAGES

SETS: dict[str, Callable[[], Iterator[FieldCase]]] = {"tables": tables, "questions": questions, "covers": covers}
ITERATIONS = 3_000
_LINE = "{:<18} {:>6} {:>7} {:>7} {:>7} {:>15} {:>7} {:>7}"
RIDGE = 1e-3
LAZY_TOKENS = 300
"""Embedded for one search: little, so that it is mostly by words, as it is at the first question to a long document."""


@dataclass(frozen=True)
class Measured:
    """A case with what was found for it: by a label, or phrases with their measures."""

    dataset: str
    kind: Kind
    held_out: bool
    absent: bool
    label: tuple[Scalar, bool] | None
    """The value of a labelled line, and whether it is right."""
    phrases: np.ndarray
    """(phrases, FEATURES)"""
    right: np.ndarray
    """Of each phrase, whether it is the value."""


def measured(cases: Sequence[FieldCase]) -> Iterator[Measured]:
    """What the offline reader has to choose from, for each case."""
    embedder = load_embedder()
    chunker = Chunker()
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        index = Index(library, embedder)
        for document in {case.document.id: case.document for case in cases}.values():
            # The documents of `reader_cases` are of no file.
            source = replace(document.source, digest=blake2b(document.id.encode(), digest_size=16).hexdigest())
            library.add(replace(document, source=source), chunker.chunks(document), recipe=chunker.recipe)
        for number, case in enumerate(cases, 1):
            if number % 10 == 0:
                print(f"{number} of {len(cases)}", flush=True)
            hits = index.search(case.field.query, RANKED_PASSAGES, within=[case.document.id], lazy_tokens=LAZY_TOKENS)
            passages = [Passage.of_hit(case.document, hit) for hit in hits]
            yield _measured(case, passages, embedder)


def _measured(case: FieldCase, passages: Sequence[Passage], embedder: object) -> Measured:
    labels: list[Finding] = list(from_labels(passages, case.field))
    asked = Question.of(case.field.question)
    ranking = rank_evidence(asked, passages, embedder)  # type: ignore[arg-type]
    phrases = phrases_of(case.field, asked, passages, ranking)
    return Measured(
        case.dataset,
        case.field.kind,
        case.held_out,
        case.gold is None,
        (labels[0].value, is_right(case, labels[0].value)) if labels else None,
        np.array([one.measures for one in phrases], dtype=np.float64).reshape(len(phrases), len(FEATURES)),
        np.array([is_right(case, one.value) for one in phrases], dtype=bool),
    )


def fit(rows: Sequence[Measured]) -> np.ndarray:
    """Weights of a logistic regression over phrases, each case weighing the same."""
    used = [row for row in rows if len(row.phrases)]
    x = np.concatenate([row.phrases for row in used])
    y = np.concatenate([row.right for row in used]).astype(np.float64)
    weight = np.concatenate([np.full(len(row.phrases), 1 / math.sqrt(len(row.phrases))) for row in used])
    mean, spread = x[:, 1:].mean(0), x[:, 1:].std(0) + 1e-9
    scaled = np.concatenate([x[:, :1], (x[:, 1:] - mean) / spread], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(ITERATIONS):
        error = weight * (1 / (1 + np.exp(-scaled @ weights)) - y)
        weights -= 1.5 * (scaled.T @ error / weight.sum() + RIDGE * weights)
    plain = np.concatenate([weights[:1] - (weights[1:] * mean / spread).sum(keepdims=True), weights[1:] / spread])
    return np.asarray(plain)


def given(row: Measured, weights: np.ndarray, least: float) -> bool | None:
    """Whether the value that is given is right; None: none is given."""
    if row.label is not None:
        return row.label[1]
    allowed = np.array([may_be_given(row.kind, measures) for measures in row.phrases.tolist()], dtype=bool)
    if not allowed.any():
        return None
    odds = np.where(allowed, row.phrases @ weights, -np.inf)
    best = int(np.argmax(odds))
    return bool(row.right[best]) if 1 / (1 + math.exp(-odds[best])) >= least else None


def threshold(rows: Sequence[Measured], weights: np.ndarray, precision: float) -> float:
    """The lowest probability from which on as many of the values given by phrases are right."""
    unlabelled = [row for row in rows if row.label is None]
    for least in np.arange(0.05, 1.0, 0.01):
        said = [right for row in unlabelled if (right := given(row, weights, float(least))) is not None]
        if said and sum(said) / len(said) >= precision:
            return round(float(least), 2)
    return 1.0


def report(rows: Sequence[Measured], weights: np.ndarray, least: float) -> None:
    """A line for each set and kind."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    for row in rows:
        groups[f"{row.dataset} {row.kind}"].append(row)
        groups["all"].append(row)
    print(_LINE.format("set and kind", "fields", "right", "wrong", "null", "right of given", "absent", "filled"))
    for name, group in sorted(groups.items(), key=lambda one: (one[0] == "all", one[0])):
        present = [given(row, weights, least) for row in group if not row.absent]
        absent = [given(row, weights, least) for row in group if row.absent]
        right, wrong = present.count(True), present.count(False)
        filled = len(absent) - absent.count(None)
        share = [f"{100 * part / max(1, len(present)):.1f} %" for part in (right, wrong, present.count(None))]
        of_given = f"{100 * right / max(1, right + wrong + filled):.1f} %"
        false = f"{100 * filled / len(absent):.1f} %" if absent else "-"
        print(_LINE.format(name, len(present), *share, of_given, len(absent), false))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--most", type=int, default=300, help="fields with a value, of each data set")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--precision", type=float, default=0.85)
    parser.add_argument("--rows", type=Path, nargs="*", default=[], help="files that keep what was measured")
    options = parser.parse_args()
    rows: list[Measured]
    if options.rows and all(path.exists() for path in options.rows):
        rows = [row for path in options.rows for row in pickle.loads(path.read_bytes())]
    else:
        started = time.monotonic()
        by_set: dict[str, list[FieldCase]] = defaultdict(list)
        for name in options.sets.split(","):
            found = SETS[name]() if name in SETS else (case for case in questions() if case.dataset == name)
            for case in found:
                by_set[case.dataset].append(case)
        cases = [case for group in by_set.values() for case in chosen(group, options.most)]
        rows = list(measured(cases))
        print(f"{len(rows)} fields in {time.monotonic() - started:.0f} s")
        if options.rows:
            options.rows[0].write_bytes(pickle.dumps(rows))
    weights, least = np.array(extract_weights.PHRASE), extract_weights.LEAST
    if options.fit:
        fitting = [row for row in rows if not row.held_out]
        weights = fit(fitting)
        least = threshold(fitting, weights, options.precision)
        print("PHRASE =", tuple(round(float(one), 3) for one in weights), " LEAST =", least)
        print(dict(zip(FEATURES, weights.round(2).tolist(), strict=True)))
        report(fitting, weights, least)
        rows = [row for row in rows if row.held_out]
    report(rows, weights, least)


if __name__ == "__main__":
    main()
