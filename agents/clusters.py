"""Texts grouped by meaning: a Gaussian mixture over a few principal components, as many groups as BIC favours.

After "RAPTOR: Recursive Abstractive Processing for Tree-Organized Retrieval", whose UMAP fails on few texts and gives
other groups each time; this one is seeded, has a group for every text, and for few texts one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcdoc.retrieval.embedders import Matrix

_COMPONENTS = 10
_FEWEST = 4
"""Fewer texts are one group."""
_MOST_GROUPS = 50
_PATIENCE = 2
"""More groups are tried until BIC has risen so often in a row."""
_SEED = 224


def clusters_of(vectors: Matrix, *, largest: int) -> list[list[int]]:
    """The rows of `vectors`, of shape (texts, dimensions), in groups of at most `largest`, each in order.

    Groups are in the order of their first rows. Equal vectors give equal groups. Raises ValueError for `largest` < 1.
    """
    if largest < 1:
        raise ValueError(f"a group has at least one text, not {largest}")
    groups = _parted(vectors, list(range(len(vectors))), largest)
    return sorted((sorted(group) for group in groups), key=lambda group: group[0])


def _parted(vectors: Matrix, rows: Sequence[int], largest: int) -> list[list[int]]:
    groups = _mixture(vectors[list(rows)])
    found: list[list[int]] = []
    for group in groups:
        inside = [rows[index] for index in group]
        if len(inside) <= largest:
            found.append(inside)
        elif len(groups) > 1:
            found += _parted(vectors, inside, largest)
        else:
            # Nothing tells them apart: neighbours stay together.
            count = -(-len(inside) // largest)
            found += [inside[part * len(inside) // count : (part + 1) * len(inside) // count] for part in range(count)]
    return found


def _mixture(vectors: Matrix) -> list[list[int]]:
    import numpy as np

    count = len(vectors)
    if count < _FEWEST or not np.ptp(vectors, axis=0).any():
        return [list(range(count))] if count else []
    from sklearn.decomposition import PCA  # type: ignore[import-untyped]
    from sklearn.mixture import GaussianMixture  # type: ignore[import-untyped]

    dimensions = min(_COMPONENTS, count // 2, vectors.shape[1])
    points = PCA(n_components=dimensions, random_state=_SEED).fit_transform(vectors.astype(np.float64))
    best, lowest, worse = None, np.inf, 0
    for groups in range(1, min(_MOST_GROUPS, count // 2) + 1):
        mixture = GaussianMixture(groups, covariance_type="diag", reg_covar=1e-4, random_state=_SEED).fit(points)
        bic = float(mixture.bic(points))
        best, lowest, worse = (mixture, bic, 0) if bic < lowest else (best, lowest, worse + 1)
        if worse == _PATIENCE:
            # With few texts, groups of one lower it again.
            break
    labels = best.predict(points) if best is not None else np.zeros(count, dtype=np.int64)
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
