"""Not saying the same thing twice: maximal marginal relevance.

Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Matrix = npt.NDArray[np.float32]


def most_relevant_and_different(relevance: Floats, vectors: Matrix, k: int, *, trade_off: float) -> list[int]:
    """The positions of the `k` candidates to show, the first first.

    Each is the one with the greatest `trade_off * relevance - (1 - trade_off) * similarity`, the similarity being that
    to the most similar candidate chosen before. `vectors` (n, dimensions) are of length 1; a row of zeros is similar to
    nothing. Relevance should be on the scale of a cosine. `trade_off` 1 orders by relevance alone.
    """
    import numpy as np

    nearest = np.zeros(len(relevance))
    left = np.ones(len(relevance), dtype=bool)
    chosen: list[int] = []
    for _ in range(min(k, len(relevance))):
        marginal = np.where(left, trade_off * relevance - (1 - trade_off) * nearest, -np.inf)
        best = int(np.argmax(marginal))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen
