"""Learned weights of sentences and their phrases together.

Made by `python benchmarks/span_reader.py fit`; its head says from what. Not to be edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RANKING: Final[Mapping[str, float]] = {
    "sentence": 0.527,
    "margin": 0.195,
    "fits": 0.354,
}
"""Which sentence answers: conditional logit, each set of questions weighing the same."""

RELEVANCE: Final[Mapping[str, float]] = {
    "intercept": 0.928,
    "relevance": 0.272,
    "confidence": 0.426,
    "margin": 0.334,
    "lead": 0.092,
    "share": -0.126,
    "fits": 0.539,
}
"""Whether the question has an answer there."""

CONFIDENCE: Final[Mapping[str, float]] = {
    "intercept": -0.545,
    "relevance": 0.121,
    "confidence": 0.541,
    "margin": -0.093,
    "lead": 0.165,
    "share": -0.090,
    "fits": 0.718,
}
"""Whether what is quoted answers the question."""

FOUND_THRESHOLD: Final = 0.5
"""Relevance below which nothing is quoted: a wrong answer costs as much as one that is withheld."""

CLAIM_MARGINS: Final[Mapping[str, float]] = {
    "words": -6.000,
    "account": 5.500,
}
"""Margin above which a phrase is claimed, and not its sentence: what gives the best token F1."""
