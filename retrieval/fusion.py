"""One ranking out of several.

`blend` adds scores: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (TOIS 2023), whose
finding, that it beats adding reciprocal ranks, holds for single documents too (`benchmarks/retrieval.py` prints both):
that a passage is far ahead by words is worth knowing, and ranks do not tell. `reciprocal_rank` needs nothing but
positions: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion Outperforms Condorcet" (SIGIR 2009).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Item = TypeVar("Item", bound=Hashable)

COSINE_WEIGHT = 0.6
"""What a cosine counts beside the share of the question's words that a passage has."""
RANK_CONSTANT = 60
"""The k of reciprocal rank fusion: how little the first places count more than the next."""


def blend(word_shares: Floats, cosines: Floats) -> Floats:
    """Relevance of each candidate, at most 1.

    `word_shares` is its score by words over the most any passage could have (0: no word), `cosines` its similarity to
    the question (NaN: no vector). A candidate without a vector is taken to be as far off as the farthest of the others.
    """
    import numpy as np

    known = ~np.isnan(cosines)
    farthest = float(cosines[known].min()) if known.any() else 0.0
    blended: Floats = (word_shares + COSINE_WEIGHT * np.where(known, cosines, farthest)) / (1 + COSINE_WEIGHT)
    return blended


def reciprocal_rank(
    rankings: Mapping[str, Sequence[Item]], *, weights: Mapping[str, float] | None = None, constant: int = RANK_CONSTANT
) -> dict[Item, float]:
    """For each item in any ranking, the sum of weight / (constant + rank) over the rankings it is in, ranks from 1."""
    scores: dict[Item, float] = {}
    for name, ranking in rankings.items():
        weight = 1.0 if weights is None else weights[name]
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (constant + rank)
    return scores
