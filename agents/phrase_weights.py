"""Weights of sentences and their phrases together.

Set by hand, until the span reader has weights to be fitted to: `python benchmarks/span_reader.py fit` writes this file
anew. Nothing uses them before (docs/span_reader.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RANKING: Final[Mapping[str, float]] = {"sentence": 0.5, "margin": 0.3, "beats": 0.3, "fits": 0.5}
"""Which sentence answers: conditional logit, each set of questions weighing the same."""

RELEVANCE: Final[Mapping[str, float]] = {
    "intercept": 0.0,
    "relevance": 0.5,
    "confidence": 0.0,
    "margin": 0.3,
    "lead": 0.0,
    "share": 0.0,
    "fits": 0.0,
}
"""Whether the question has an answer there."""

CONFIDENCE: Final[Mapping[str, float]] = {
    "intercept": 0.0,
    "relevance": 0.0,
    "confidence": 0.5,
    "margin": 0.3,
    "lead": 0.0,
    "share": 0.0,
    "fits": 0.0,
}
"""Whether what is quoted answers the question."""

FOUND_THRESHOLD: Final = 0.5
"""Relevance below which nothing is quoted."""
