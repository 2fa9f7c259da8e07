"""Learned weights of the offline reader.

Made by `python benchmarks/offline_reader.py fit`; its head says from what. Not to be edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Weights = Mapping[str, float]

PRESELECTION: Final[Weights] = {
    "recall": 9.495,
    "neighbour_recall": 1.403,
    "heading_recall": 0.701,
    "passage_recall": 1.375,
    "pairs": 1.232,
    "figure_fits": 2.580,
    "name_fits": 0.142,
    "clause_fits": 1.332,
    "number_recall": -0.697,
    "other_year": -2.259,
    "counted": 1.733,
    "name_recall": -0.212,
    "names_missing_nearby": -0.121,
    "novelty": -1.312,
    "short": 0.530,
    "long": -0.363,
    "is_question": -3.120,
    "is_fragment": -1.293,
    "is_row": 0.900,
    "row_for_figure": 0.627,
    "rank": 1.421,
}
"""Which candidates are worth a vector: conditional logit without vectors."""

RANKING: Final[Weights] = {
    "cosine": 2.588,
    "cosine_margin": 2.465,
    "recall": 8.740,
    "neighbour_recall": 1.349,
    "heading_recall": 0.674,
    "passage_recall": 1.954,
    "pairs": 0.860,
    "figure_fits": 2.541,
    "name_fits": -0.092,
    "clause_fits": 1.211,
    "number_recall": -0.660,
    "other_year": -2.426,
    "counted": 1.331,
    "name_recall": -0.781,
    "names_missing_nearby": -0.116,
    "novelty": 0.058,
    "short": 1.388,
    "long": -0.149,
    "is_question": -3.185,
    "is_fragment": -1.343,
    "is_row": 0.788,
    "row_for_figure": 0.624,
    "rank": 0.461,
    "passage_cosine": 2.900,
}
"""Which candidate answers: conditional logit, each set of questions weighing the same."""

PASSAGE_COSINE_FROM_BEST: Final = (0.936, -0.023)
"""Slope and intercept: a passage's cosine from that of its best candidate (least squares)."""

RELEVANCE: Final[Weights] = {
    "intercept": -9.978,
    "score": 0.412,
    "margin": -0.221,
    "share": 0.231,
    "cosine": 2.547,
    "best_cosine": 7.571,
    "recall": 0.988,
    "nearby_recall": 2.148,
    "pairs": 3.094,
    "absent": -1.034,
    "absent_names": -1.235,
    "names_missing_nearby": 0.129,
    "best_passage_cosine": 3.804,
    "fits": -0.211,
}
"""Whether the question is about this document: answerable against easy ones."""

CONFIDENCE: Final[Weights] = {
    "intercept": -4.272,
    "score": 0.280,
    "margin": -0.149,
    "share": 1.959,
    "cosine": -2.143,
    "best_cosine": 4.212,
    "recall": 0.895,
    "nearby_recall": -0.682,
    "pairs": -1.005,
    "absent": -0.467,
    "absent_names": -1.823,
    "names_missing_nearby": 0.605,
    "best_passage_cosine": 0.680,
    "fits": 0.543,
}
"""Whether what is quoted answers the question."""

FOUND_THRESHOLD: Final = 0.129
"""Relevance below which nothing is quoted; 93% of the questions about something else are below it."""
