"""From an answer to figures: what is counted of each question, and what each figure is called.

A figure that a question cannot have is left out of its row: no recall without gold evidence, no precision of citations
where none is shown. A question that failed is answered by nothing, and is wrong whether or not there is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from lcdoc.documents import Span
from lcdoc.evaluation.cases import Case
from lcdoc.evaluation.metrics import exact_match, normalised, rouge_l, token_f1

Unit = Literal["share", "number", "usd", "seconds"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a question, as tables name it."""

    title: str
    about: str
    unit: Unit = "share"


METRICS: dict[str, Metric] = {
    "exact": Metric("EM", "the answer is a reference, both normalised as SQuAD does"),
    "f1": Metric("F1", "words of the answer and of the best reference, harmonic mean of precision and recall"),
    "f1_answerable": Metric("F1, answerable", "the same, of the questions that have an answer"),
    "rouge_l": Metric("ROUGE-L", "longest common subsequence of the whole answer and the best reference, F-measure"),
    "contains": Metric("contains", "a reference stands in the answer or in one of its quotes"),
    "answered": Metric("answered", "of the questions that have an answer, those that got one"),
    "refused": Metric("refused", "of the questions that have none, those where none was given"),
    "gold_cited": Metric("evidence cited", "share of the gold evidence that a citation touches"),
    "citations_right": Metric("citations right", "share of the citations that touch gold evidence"),
    "claims_cited": Metric("claims cited", "share of the claims that have a checked citation"),
    "recall_1": Metric("recall@1", "share of the gold evidence that the first passage found touches"),
    "recall_5": Metric("recall@5", "the same for the first five passages"),
    "mrr": Metric("MRR", "1 / place of the first passage found that touches gold evidence"),
    "calls": Metric("calls", "requests to the model, those answered from the store included", "number"),
    "tokens": Metric("tokens", "in and out", "number"),
    "usd": Metric("cost, $", "of what was sent", "usd"),
    "seconds": Metric("seconds", "until the answer was there", "seconds"),
}
RISK = Metric("AURC", "error (1 - F1) of the k surest answers, averaged over every k; refusals are last")
_OF_QUALITY = ("exact", "f1", "rouge_l", "contains")
_WHEN_FAILED = (*_OF_QUALITY, "f1_answerable", "answered", "refused", "gold_cited")


@dataclass(frozen=True, slots=True)
class Statement:
    """One claim of an answer."""

    text: str
    citations: tuple[tuple[Span, ...], ...] = ()
    """Checked citations, each the spans it quotes."""
    quotes: tuple[str, ...] = ()
    pages: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """What somebody who was asked gave back, whoever it was."""

    found: bool
    claims: tuple[Statement, ...] = ()
    """The strongest first."""
    confidence: float = 0.0
    ranking: tuple[Span, ...] = ()
    """Passages that were found for the question, best first; none where nothing was searched."""
    calls: int = 0
    stored_calls: int = 0
    """Of the calls, those that an earlier answer was taken for: no cap counts them."""
    tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    partial: bool = False
    """A cap ended the work before its time."""

    @property
    def text(self) -> str:
        return "\n".join(claim.text for claim in self.claims) if self.found else ""


def figures_of(case: Case, evidence: Sequence[Span], response: Response) -> dict[str, float]:
    """The figures of an answer, by the keys of METRICS. `evidence` is where the gold evidence stands."""
    answer = response.text
    first = answer if case.several or not response.claims else response.claims[0].text if response.found else ""
    shown = [answer, *(quote for claim in response.claims for quote in claim.quotes)] if response.found else []
    figures = {
        "exact": exact_match(first, case.references),
        "f1": token_f1(first, case.references),
        "rouge_l": rouge_l(answer, case.references),
        "contains": _contains(shown, case.references),
        ("answered" if case.references else "refused"): float(response.found == bool(case.references)),
        "calls": float(response.calls),
        "tokens": float(response.tokens),
        "seconds": response.seconds,
    }
    if case.references:
        figures["f1_answerable"] = figures["f1"]
    if response.usd is not None:
        figures["usd"] = response.usd
    claims = response.claims if response.found else ()
    if claims:
        figures["claims_cited"] = fmean(bool(claim.citations) for claim in claims)
    if evidence:
        cited = [parts for claim in claims for parts in claim.citations]
        figures["gold_cited"] = fmean(any(_touch(parts, (gold,)) for parts in cited) for gold in evidence)
        if cited:
            figures["citations_right"] = fmean(_touch(parts, evidence) for parts in cited)
        if response.ranking:
            figures |= ranking_figures(evidence, response.ranking, ks=(1, 5))
    return figures


def ranking_figures(evidence: Sequence[Span], ranking: Sequence[Span], *, ks: Sequence[int]) -> dict[str, float]:
    """`recall_k` for each k, and `mrr`, of passages found, best first."""
    places = [next((place for place, one in enumerate(ranking, 1) if one.overlaps(gold)), None) for gold in evidence]
    figures = {f"recall_{k}": fmean(place is not None and place <= k for place in places) for k in ks}
    return figures | {"mrr": max((1 / place for place in places if place is not None), default=0.0)}


def figures_of_failure(case: Case, evidence: Sequence[Span]) -> dict[str, float]:
    """The figures of a question whose answering failed: all that can be wrong is."""
    absent = {"refused"} if case.references else {"answered", "f1_answerable"}
    absent |= set() if evidence else {"gold_cited"}
    return {name: 0.0 for name in _WHEN_FAILED if name not in absent}


def _contains(shown: Sequence[str], references: Sequence[str]) -> float:
    """1 where one of the texts has all the words of a reference, in a row; without references, where nothing is."""
    if not references:
        return float(not any(normalised(text) for text in shown))
    texts = [f" {normalised(text)} " for text in shown]
    return float(
        any(f" {wanted} " in text for reference in references if (wanted := normalised(reference)) for text in texts)
    )


def _touch(parts: Sequence[Span], evidence: Sequence[Span]) -> bool:
    return any(part.overlaps(gold) for part in parts for gold in evidence)
