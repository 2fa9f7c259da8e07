"""How well the span reader answers, beside simpler readers; and how its phrases are weighed.

    python benchmarks/span_reader.py paragraphs     # squad and others, the right paragraph given
    python benchmarks/span_reader.py documents      # whole documents, through the package's reader and simpler ones
    python benchmarks/span_reader.py speed
    python benchmarks/span_reader.py fit            # learn the weights anew; prints agents/phrase_weights.py

--weights FILE takes another file than the packaged one. Documents of the test part only (`lcdoc.evaluation.parts`); of
sets that are not trained on, the half that `reader_cases` holds out. Intervals are 95 %, over documents. Passages of a
document: the package's chunks, 8 of them, by reciprocal rank fusion of cosine and tf-idf; vectors are kept in --cache.
`fit` uses the tune part, and the other half. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lcdoc.agents.claims import claim_of
from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.offline_reader import OfflineReader, quoted_evidence
from lcdoc.agents.phrases import (
    FEATURES,
    SIGNALS,
    UNREAD,
    WANTED,
    features_of,
    in_order,
    phrase_of,
    signals_of,
    wanted,
    with_phrases,
)
from lcdoc.agents.questions import Question
from lcdoc.agents.span_reader.model import SpanModel, load_span_model
from lcdoc.agents.span_reader.weights import PATH
from lcdoc.benchmarks.offline_reader import conditional_logit, logistic
from lcdoc.benchmarks.reader_cases import CachedEmbedder, Case, Finder, is_hit
from lcdoc.benchmarks.span_cases import SETS, with_finder
from lcdoc.benchmarks.span_examples import Reading, readings
from lcdoc.evaluation.metrics import exact_match, token_f1
from lcdoc.evaluation.statistics import mean_of
from lcdoc.retrieval.sentences import sentence_spans

KIND_SHARES = {"answerable": 0.70, "adversarial": 0.15, "easy": 0.15}
"""What found and confidence are fitted for: how many of the questions asked are of each kind."""
FITTED = ("squad", "nq", "tatqa", "covid_qa", "ohr_bench", "fairytaleqa")
"""Sets that the weights are learned on; policyqa is not."""


# --- paragraphs ------------------------------------------------------------------------------------------------------


def paragraphs(model: SpanModel) -> None:
    """Answers from the right paragraph: F1 with an answer forced, and with "no answer" allowed where it is likelier."""
    print("the right paragraph given, test part; percent, 95 % intervals over documents")
    print(f"{'set':28}{'questions':>10}{'EM':>20}{'F1':>20}{'F1, no-answer allowed':>24}")
    squad_rows: list[tuple[Reading, float, float]] = []
    for name in ("squad", "nq", "covid_qa", "fairytaleqa", "hotpot", "musique", "2wikimultihop", "policyqa"):
        rows = [reading for reading in readings([name]) if reading.part == "test"]
        answered = [reading for reading in rows if reading.answers]
        scored = []
        for reading in rows if name == "squad" else answered:
            text = reading.passages[reading.home]
            (found,) = model.answers(reading.question, [text])
            answer = text[found[0].start : found[0].end] if found else ""
            margin = found[0].margin if found else -99.0
            scored.append((reading, margin, exact_match(answer, reading.golds), token_f1(answer, reading.golds)))
        yes = [row for row in scored if row[0].answers]
        documents = [reading.document for reading, *_ in yes]
        em, f1 = (mean_of([row[column] for row in yes], documents) for column in (2, 3))
        kept = mean_of([row[3] if row[1] > 0 else 0.0 for row in yes], documents)
        print(
            f"{name + ', answerable':28}{len(yes):10}{_percent(em):>20}{_percent(f1):>20}{_percent(kept):>24}",
            flush=True,
        )
        if name == "squad":
            squad_rows = [(reading, margin, f1) for reading, margin, _, f1 in scored]
            no = [row for row in scored if not row[0].golds]
            refused = mean_of([float(margin <= 0) for _, margin, *_ in no], [row[0].document for row in no])
            print(f"{'squad, unanswerable refused':28}{len(no):10}{_percent(refused):>64}")
    print("\nsquad by threshold: F1 of answerable ones, unanswerable ones refused, both together as v2.0 counts them")
    yes_rows = [row for row in squad_rows if row[0].golds]
    no_rows = [row for row in squad_rows if not row[0].golds]
    for threshold in (-4, -2, -1, 0, 1, 2, 4):
        f1s = [f1 if margin > threshold else 0.0 for _, margin, f1 in yes_rows]
        refusals = [float(margin <= threshold) for _, margin, _ in no_rows]
        together = (sum(f1s) + sum(refusals)) / (len(f1s) + len(refusals))
        print(f"{threshold:6}{100 * np.mean(f1s):8.1f}{100 * np.mean(refusals):8.1f}{100 * together:8.1f}")


def _percent(estimate: object) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}-{100 * estimate.high:.1f})"  # type: ignore[attr-defined]


# --- documents -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What a reader shows: its first claim, the quotes behind its claims, how sure it is."""

    claim: str
    quotes: tuple[str, ...]
    confidence: float

    @classmethod
    def nothing(cls, confidence: float = 0.0) -> Shown:
        return cls("", (), confidence)


Reader = Callable[[Case, Finder], Shown]


def first_sentence(case: Case, finder: Finder) -> Shown:
    """Of the best passage by BM25."""
    best = finder.best_by_words(case.question)
    sentences = sentence_spans(best.document.body, best.span.start, best.span.end)
    text = sentences[0].of(best.document.body)
    return Shown(text, (text,), 1.0)


def best_sentence(embedder: CachedEmbedder) -> Reader:
    def read(case: Case, finder: Finder) -> Shown:
        sentences = [
            span.of(passage.document.body)
            for passage in finder.passages(case.question)
            for span in sentence_spans(passage.document.body, passage.span.start, passage.span.end)
        ]
        vectors = embedder.embed([case.question, *sentences])
        best = sentences[int(np.argmax(vectors[1:] @ vectors[0]))]
        return Shown(best, (best,), 1.0)

    return read


def through(reader: OfflineReader) -> Reader:
    def read(case: Case, finder: Finder) -> Shown:
        note = reader.note_of(finder.passages(case.question), case.question)
        if not note.found:
            return Shown.nothing(note.confidence / 5)
        return Shown(note.claim, tuple(quote.citation.quote for quote in note.quotes), note.confidence / 5)

    return read


def documents(model: SpanModel, embedder: CachedEmbedder, names: Sequence[str]) -> None:
    """Whole documents: the first claim beside the gold answers, and what is said of questions without an answer."""
    readers: dict[str, Reader] = {
        "BM25, first sentence": first_sentence,
        "MiniLM, best sentence": best_sentence(embedder),
        "sentences ranked": through(OfflineReader(embedder, None)),
        "with the span reader": through(OfflineReader(embedder, lambda: model)),
    }
    rows: dict[tuple[str, str], list[tuple[Case, Shown]]] = defaultdict(list)
    took: dict[str, list[float]] = defaultdict(list)
    for case, finder in with_finder("test", names, embedder):
        for name, read in readers.items():
            started = time.perf_counter()
            rows[case.dataset, name].append((case, read(case, finder)))
            took[name].append(time.perf_counter() - started)
    embedder.save()
    print("whole documents, test part; percent, 95 % intervals over documents")
    head = f"{'F1':>20}{'EM':>8}{'quoted':>20}{'not found':>11}{'near misses refused':>21}{'others refused':>16}"
    print(f"{'set':13}{'reader':24}{'questions':>10}{head}")
    for (dataset, name), own in rows.items():
        yes = [(case, shown) for case, shown in own if case.kind == "answerable"]
        ids = [case.document.id for case, _ in yes]
        golds = [[gold.removeprefix("~") for gold in case.golds] for case, _ in yes]
        f1 = mean_of([token_f1(shown.claim, gold) for (_, shown), gold in zip(yes, golds, strict=True)], ids)
        em = np.mean([exact_match(shown.claim, gold) for (_, shown), gold in zip(yes, golds, strict=True)])
        quoted = mean_of([float(_right(case, shown)) for case, shown in yes], ids)
        missed = np.mean([not shown.quotes for _, shown in yes])
        refused = [
            f"{100 * np.mean([not shown.quotes for shown in some]):.1f}" if some else "–"
            for kind in ("adversarial", "easy")
            for some in [[shown for case, shown in own if case.kind == kind]]
        ]
        print(
            f"{dataset:13}{name:24}{len(yes):10}{_percent(f1):>20}{100 * em:8.1f}{_percent(quoted):>20}"
            f"{100 * missed:11.1f}{refused[0]:>21}{refused[1]:>16}"
        )
    for name, seconds in took.items():
        print(f"{name}: median {1e3 * statistics.median(seconds):.0f} ms a question")
    for name in ("sentences ranked", "with the span reader"):
        for title, some in (("sets fitted on", FITTED), ("policyqa", ("policyqa",))):
            pairs = [pair for dataset in some for pair in rows.get((dataset, name), [])]
            if pairs:
                print(f"{name}, {title}: expected calibration error {calibration_error(pairs):.3f}")


def _right(case: Case, shown: Shown) -> bool:
    return any(is_hit(quote, case.golds) for quote in shown.quotes)


def calibration_error(pairs: Sequence[tuple[Case, Shown]]) -> float:
    """Mean distance of confidence and share right in ten bins ("On Calibration of Modern Neural Networks", section 3).

    Kinds weigh as they are expected to be asked, and sets alike.
    """
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for case, _ in pairs:
        counts[case.dataset, case.kind] += 1
    weight = np.array([KIND_SHARES[case.kind] / counts[case.dataset, case.kind] for case, _ in pairs])
    sure = np.array([shown.confidence for _, shown in pairs])
    right = np.array([_right(case, shown) for case, shown in pairs], dtype=float)
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs(float((weight * (right - sure))[bins == b].sum())) for b in range(10)]
    return sum(gaps) / float(weight.sum())


# --- speed -----------------------------------------------------------------------------------------------------------


def speed(model: SpanModel) -> None:
    """Fifty passages of 200 tokens."""
    text = " ".join(passage for reading in [next(readings(["squad"]))] for passage in reading.passages)
    window = model.vocabulary.windows(text, tokens=200)[::2]
    passages = [text[one.starts[0] : one.ends[-1]] for one in window]
    passages = [passages[index % (len(passages) - 1)] for index in range(50)]
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        model.answers("Which states put an embargo on oil?", passages)
        seconds.append(time.perf_counter() - started)
    tokens = sum(len(one.ids) for passage in passages for one in model.vocabulary.windows(passage))
    print(f"50 passages, {tokens} tokens: median {statistics.median(seconds):.2f} s, best {min(seconds):.2f} s")


# --- fit -------------------------------------------------------------------------------------------------------------


def fit(model: SpanModel, embedder: CachedEmbedder, names: Sequence[str]) -> None:
    """Print phrase_weights.py, learned on the tune part."""
    measured = []
    for case, finder in with_finder("tune", names, embedder):
        question, passages = Question.of(case.question), finder.passages(case.question)
        ranking = rank_evidence(question, passages, embedder)
        if ranking.evidence:
            evidence = with_phrases(question, passages, ranking.evidence, model)
            hits = np.array([is_hit(one.candidate.text, case.golds) for one in evidence])
            measured.append((case, question, ranking, evidence, hits))
    embedder.save()
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for case, *_ in measured:
        counts[case.dataset, case.kind] += 1
    groups = [
        (features_of(question, evidence), hits, 1 / counts[case.dataset, "answerable"])
        for case, question, _, evidence, hits in measured
        if case.kind == "answerable" and hits.any()
    ]
    weights = conditional_logit(groups, FEATURES)
    signals, right, answerable, shares, claims = [], [], [], [], []
    for case, question, ranking, evidence, _ in measured:
        ordered = in_order(question, evidence, weights)
        signals.append(signals_of(question, replace(ranking, evidence=ordered)))
        count = quoted_evidence(np.array([one.share for one in ordered]))
        right.append(any(is_hit(one.candidate.text, case.golds) for one in ordered[:count]))
        answerable.append(case.kind == "answerable")
        shares.append(KIND_SHARES[case.kind] / counts[case.dataset, case.kind])
        golds = [gold.removeprefix("~") for gold in case.golds]
        best = ordered[0]
        phrase = phrase_of(replace(best, phrases=best.phrases[:1]), question, dict.fromkeys(WANTED, UNREAD))
        if case.kind == "answerable":
            of_sentence = token_f1(claim_of(best.candidate.text, question), golds)
            of_phrase = of_sentence if phrase is None else token_f1(phrase, golds)
            margin = best.phrase.margin if best.phrase else UNREAD
            claims.append(Claimed(case.dataset, wanted(question), margin, of_phrase, of_sentence))
    shares = (np.array(shares) / np.mean(shares)).tolist()
    relevance = logistic(signals, answerable, shares, SIGNALS)
    confidence = logistic(signals, right, shares, SIGNALS)
    print(f"# questions: { {f'{a} {b}': n for (a, b), n in counts.items()} }")
    margins = {kind: claim_margin([one for one in claims if one.wanted == kind]) for kind in WANTED}
    for name in names:
        own = [one for one in claims if one.dataset == name]
        f1s = [[one.f1_at(least) for one in own] for least in (UNREAD, math.inf)]
        f1s.append([one.f1_at(margins[one.wanted]) for one in own])
        phrase, sentence, chosen = (100 * np.mean(some) for some in f1s)
        print(f"# {name}: F1 of the first claim: phrases {phrase:.1f}, sentences {sentence:.1f}, chosen {chosen:.1f}")
    print(rendered(weights, relevance, confidence, margins))


@dataclass(frozen=True, slots=True)
class Claimed:
    """How right the best sentence's phrase would be as a claim, and the sentence itself (token F1)."""

    dataset: str
    wanted: str
    margin: float
    phrase: float
    sentence: float

    def f1_at(self, least: float) -> float:
        return self.phrase if self.margin > least else self.sentence


def claim_margin(claims: Sequence[Claimed]) -> float:
    """The margin above which claiming the phrase is best, each set weighing the same."""
    sizes = Counter(one.dataset for one in claims)

    def mean(least: float) -> float:
        return sum(one.f1_at(least) / sizes[one.dataset] for one in claims)

    return max((step / 2 for step in range(-12, 21)), key=mean)


def rendered(
    ranking: dict[str, float], relevance: dict[str, float], confidence: dict[str, float], margins: dict[str, float]
) -> str:
    """phrase_weights.py."""

    def table(name: str, weights: dict[str, float], doc: str) -> str:
        rows = "\n".join(f'    "{key}": {value:.3f},' for key, value in weights.items())
        return f'{name}: Final[Mapping[str, float]] = {{\n{rows}\n}}\n"""{doc}"""\n'

    return "\n".join(
        [
            '"""Learned weights of sentences and their phrases together.',
            "",
            "Made by `python benchmarks/span_reader.py fit`; its head says from what. Not to be edited by hand.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Mapping",
            "from typing import Final",
            "",
            table(
                "RANKING",
                ranking,
                "Which sentence answers: conditional logit, each set of questions weighing the same.",
            ),
            table("RELEVANCE", relevance, "Whether the question has an answer there."),
            table("CONFIDENCE", confidence, "Whether what is quoted answers the question."),
            "FOUND_THRESHOLD: Final = 0.5",
            '"""Relevance below which nothing is quoted: a wrong answer costs as much as one that is withheld."""',
            "",
            table(
                "CLAIM_MARGINS",
                margins,
                "Margin above which a phrase is claimed, and not its sentence: what gives the best token F1.",
            ),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["paragraphs", "documents", "speed", "fit"])
    parser.add_argument("--weights", type=Path, default=PATH)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "lcdoc-span-reader.pickle")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    arguments = parser.parse_args()
    model = load_span_model(arguments.weights)
    if arguments.what == "paragraphs":
        paragraphs(model)
    elif arguments.what == "speed":
        speed(model)
    elif arguments.what == "fit":
        fit(model, CachedEmbedder(arguments.cache), [name for name in arguments.sets if name in FITTED])
    else:
        documents(model, CachedEmbedder(arguments.cache), arguments.sets)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
