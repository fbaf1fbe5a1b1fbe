"""Rules that keep whole models by their distances: krum, multi_krum, nna.

Ties go to the row that comes first; the own model is first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossipfl.aggregation.base import Blend, refuse_not_finite
from gossipfl.aggregation.distances import (
    Squares,
    exact_squared_distances,
    pairwise,
    squared_distances,
)
from gossipfl.aggregation.linear import mean_of
from gossipfl.parameters import Vector

TIE = 1e-5
"""Distances or scores closer than this share of each other at the edge of what is kept are computed
again in float64. Measured error of the fast ones: 6e-7, by design at most 1e-5 (CONDITION). So two
machines whose BLAS adds in another order still keep the same models, and the merge can be checked.
"""


def nna(rows: Sequence[Vector], f: int) -> Blend:
    """The mean of the m'-f models nearest to own, which is the first row and counts as nearest.

    MoNNA (Farhadkhani 2023), GTS (Gaucher 2025).
    """
    distances = np.array([0.0, *squared_distances(rows[0], rows[1:])])
    if not np.isfinite(distances).all():
        raise refuse_not_finite("nna", rows)
    keep = len(rows) - f
    doubtful = _doubtful(distances, keep)
    if doubtful:
        distances[doubtful] = exact_squared_distances(rows[0], [rows[i] for i in doubtful])
    return _mean_of_kept(rows, _smallest(distances, keep))


def krum(rows: Sequence[Vector], f: int) -> Blend:
    """The one model with the smallest sum of squared distances to its m'-f-2 nearest others.

    Blanchard 2017.
    """
    return _mean_of_kept(rows, central("krum", rows, len(rows) - f - 2, keep=1))


def multi_krum(rows: Sequence[Vector], f: int) -> Blend:
    """The mean of the m'-f models with the best Krum scores: as many as are assumed honest."""
    return _mean_of_kept(rows, central("multi_krum", rows, len(rows) - f - 2, len(rows) - f))


def krum_scores(squared: Squares, closest: int) -> Squares:
    """float64[n]: for each row the sum of its `closest` smallest squared distances to others."""
    others = np.sort(squared, axis=1)[:, 1 : closest + 1]  # column 0 is the row itself, at 0
    return np.asarray(others.sum(axis=1))


def central(name: str, rows: Sequence[Vector], closest: int, keep: int) -> list[int]:
    """The `keep` rows with the smallest Krum scores, best first."""
    squared = pairwise(rows)
    if not np.isfinite(squared).all():
        raise refuse_not_finite(name, rows)
    scores = krum_scores(squared, closest)
    doubtful = _doubtful(scores, keep)
    if doubtful:
        for row in doubtful:
            squared[row, :] = squared[:, row] = exact_squared_distances(rows[row], rows)
        scores = krum_scores(squared, closest)
    return _smallest(scores, keep)


def _smallest(values: Squares, keep: int) -> list[int]:
    """The places of the `keep` smallest values, smallest first, ties by place."""
    return [int(place) for place in np.argsort(values, kind="stable")[:keep]]


def _doubtful(values: Squares, keep: int) -> list[int]:
    """The places whose values are too close to tell which side of the `keep` smallest they are on.

    Copies of one model have equal values and need no second look: ties go by place.
    """
    order = np.argsort(values, kind="stable")
    last = values[order[keep - 1]]
    near = np.abs(values - last) <= TIE * last
    if not near[order[keep:]].any() or np.unique(values[near]).size == 1:
        return []
    return [int(place) for place in np.flatnonzero(near)]


def _mean_of_kept(rows: Sequence[Vector], kept: Sequence[int]) -> Blend:
    """The mean of the kept rows, summed in row order, with equal shares."""
    chosen = set(kept)
    share = 1.0 / len(chosen)
    parameters = mean_of([row for index, row in enumerate(rows) if index in chosen])
    return Blend(parameters, tuple(share if i in chosen else 0.0 for i in range(len(rows))))
