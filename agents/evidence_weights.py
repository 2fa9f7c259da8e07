"""Learned weights of the offline reader.

Made by `python benchmarks/offline_reader.py fit`; its head says from what. Not to be edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Weights = Mapping[str, float]

PRESELECTION: Final[Weights] = {
    "recall": 9.521,
    "neighbour_recall": 1.376,
    "heading_recall": 0.688,
    "passage_recall": 1.501,
    "pairs": 1.304,
    "figure_fits": 2.593,
    "name_fits": 0.135,
    "clause_fits": 1.342,
    "number_recall": -0.674,
    "other_year": -2.252,
    "counted": 1.909,
    "name_recall": -0.205,
    "names_missing_nearby": -0.105,
    "novelty": -1.320,
    "short": 0.530,
    "long": -0.383,
    "is_question": -3.120,
    "is_fragment": -1.335,
    "is_row": 0.906,
    "row_for_figure": 0.670,
    "rank": 1.402,
}
"""Which candidates are worth a vector: conditional logit without vectors."""

RANKING: Final[Weights] = {
    "cosine": 2.559,
    "cosine_margin": 2.437,
    "recall": 8.755,
    "neighbour_recall": 1.314,
    "heading_recall": 0.657,
    "passage_recall": 2.097,
    "pairs": 0.937,
    "figure_fits": 2.550,
    "name_fits": -0.096,
    "clause_fits": 1.217,
    "number_recall": -0.644,
    "other_year": -2.423,
    "counted": 1.478,
    "name_recall": -0.760,
    "names_missing_nearby": -0.097,
    "novelty": 0.025,
    "short": 1.370,
    "long": -0.155,
    "is_question": -3.178,
    "is_fragment": -1.390,
    "is_row": 0.796,
    "row_for_figure": 0.651,
    "rank": 0.455,
    "passage_cosine": 2.880,
}
"""Which candidate answers: conditional logit, each set of questions weighing the same."""

PASSAGE_COSINE_FROM_BEST: Final = (0.936, -0.023)
"""Slope and intercept: a passage's cosine from that of its best candidate (least squares)."""

RELEVANCE: Final[Weights] = {
    "intercept": -9.879,
    "score": 0.408,
    "margin": -0.217,
    "share": 0.325,
    "cosine": 2.380,
    "best_cosine": 7.600,
    "recall": 0.744,
    "nearby_recall": 2.245,
    "pairs": 3.083,
    "absent": -1.142,
    "absent_names": -1.338,
    "names_missing_nearby": 0.226,
    "best_passage_cosine": 3.853,
    "fits": -0.148,
}
"""Whether the question is about this document: answerable against easy ones."""

CONFIDENCE: Final[Weights] = {
    "intercept": -4.069,
    "score": 0.269,
    "margin": -0.138,
    "share": 1.887,
    "cosine": -1.536,
    "best_cosine": 3.391,
    "recall": 1.089,
    "nearby_recall": -0.892,
    "pairs": -0.951,
    "absent": -0.567,
    "absent_names": -1.985,
    "names_missing_nearby": 0.741,
    "best_passage_cosine": 0.803,
    "fits": 0.591,
}
"""Whether what is quoted answers the question."""

FOUND_THRESHOLD: Final = 0.119
"""Relevance below which nothing is quoted; 93% of the questions about something else are below it."""
