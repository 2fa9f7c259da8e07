"""Learned weights of the offline reader.

Made by `python benchmarks/offline_reader.py fit`; its head says from what. Not to be edited by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Weights = Mapping[str, float]

PRESELECTION: Final[Weights] = {
    "recall": 9.392,
    "neighbour_recall": 2.436,
    "heading_recall": 1.218,
    "passage_recall": 0.524,
    "pairs": 1.404,
    "figure_fits": 2.712,
    "name_fits": -0.049,
    "clause_fits": 1.862,
    "number_recall": -0.538,
    "name_recall": -0.483,
    "names_missing_nearby": -0.168,
    "novelty": -1.801,
    "short": 0.265,
    "long": -0.449,
    "is_question": -2.769,
    "is_fragment": -1.849,
    "is_row": 0.758,
    "row_for_figure": 1.014,
    "rank": 1.529,
}
"""Which candidates are worth a vector: conditional logit without vectors."""

RANKING: Final[Weights] = {
    "cosine": 2.905,
    "cosine_margin": 2.729,
    "recall": 8.796,
    "neighbour_recall": 2.321,
    "heading_recall": 1.161,
    "passage_recall": 1.259,
    "pairs": 0.973,
    "figure_fits": 2.611,
    "name_fits": -0.295,
    "clause_fits": 1.823,
    "number_recall": -0.480,
    "name_recall": -1.148,
    "names_missing_nearby": -0.109,
    "novelty": -0.290,
    "short": 1.162,
    "long": -0.264,
    "is_question": -3.187,
    "is_fragment": -2.010,
    "is_row": 0.850,
    "row_for_figure": 0.869,
    "rank": 0.434,
    "passage_cosine": 3.726,
}
"""Which candidate answers: conditional logit, each set of questions weighing the same."""

PASSAGE_COSINE_FROM_BEST: Final = (0.930, -0.022)
"""Slope and intercept: a passage's cosine from that of its best candidate (least squares)."""

RELEVANCE: Final[Weights] = {
    "intercept": -7.291,
    "score": -0.248,
    "margin": 0.139,
    "cosine": 4.215,
    "best_cosine": 5.828,
    "recall": 1.620,
    "nearby_recall": 4.725,
    "pairs": 1.584,
    "absent": -1.275,
    "absent_names": -1.507,
    "names_missing_nearby": -0.487,
    "best_passage_cosine": 3.863,
    "fits": -0.096,
}
"""Whether the question is about this document: answerable against easy ones."""

CONFIDENCE: Final[Weights] = {
    "intercept": -3.650,
    "score": 0.172,
    "margin": 0.046,
    "cosine": -0.402,
    "best_cosine": 3.149,
    "recall": 0.822,
    "nearby_recall": -0.110,
    "pairs": -0.179,
    "absent": 0.068,
    "absent_names": -1.148,
    "names_missing_nearby": -0.241,
    "best_passage_cosine": 0.817,
    "fits": 0.135,
}
"""Whether what is quoted answers the question."""

FOUND_THRESHOLD: Final = 0.540
"""Relevance below which nothing is quoted: 95 % of the questions about other documents are below it."""
