"""Rules that keep whole models by their distances: krum, multi_krum, nna.

Ties go to the row that comes first; the own model is first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gossipfl.aggregation.base import Blend
from gossipfl.aggregation.distances import Squares
from gossipfl.aggregation.models import Models

TIE = 1e-5
"""Distances or scores closer than this share of each other at the edge of what is kept are computed
again in float64. Measured error of the fast ones: 6e-7, by design at most 1e-5 (CONDITION). So two
machines whose BLAS adds in another order still keep the same models, and the merge can be checked.
"""


def nna(models: Models, f: int) -> Blend:
    """The mean of the m'-f models nearest to own, which is the first row and counts as nearest.

    MoNNA (Farhadkhani 2023), GTS (Gaucher 2025).
    """
    distances = models.from_first()
    keep = len(models) - f
    doubtful = doubtful_places(distances, keep)
    if doubtful:
        distances[doubtful] = models.exact(0, doubtful)
    return _mean_of_kept(models, smallest(distances, keep))


def krum(models: Models, f: int) -> Blend:
    """The one model with the smallest sum of squared distances to its m'-f-2 nearest others.

    Blanchard 2017.
    """
    return _mean_of_kept(models, central(models, len(models) - f - 2, keep=1))


def multi_krum(models: Models, f: int) -> Blend:
    """The mean of the m'-f models with the best Krum scores: as many as are assumed honest."""
    return _mean_of_kept(models, central(models, len(models) - f - 2, len(models) - f))


def krum_scores(squared: Squares, closest: int) -> Squares:
    """float64[n]: for each row the sum of its `closest` smallest squared distances to others."""
    others = np.sort(squared, axis=1)[:, 1 : closest + 1]  # column 0 is the row itself, at 0
    return np.asarray(others.sum(axis=1))


def central(models: Models, closest: int, keep: int) -> list[int]:
    """The `keep` models with the smallest Krum scores, best first."""
    squared = models.pairwise()
    scores = krum_scores(squared, closest)
    doubtful = doubtful_places(scores, keep)
    twins = first_equals(squared)
    different = sorted({twins[row] for row in doubtful})
    if len(different) > 1:
        squared = squared.copy()
        for row in different:
            squared[row, :] = squared[:, row] = models.exact(row, range(len(models)))
        for row in doubtful:
            squared[row, :] = squared[:, row] = squared[twins[row], :]
        scores = krum_scores(squared, closest)
    return smallest(scores, keep)


def first_equals(squared: Squares) -> tuple[int, ...]:
    """For each model the first one at distance 0: its own place if there is none before it."""
    return tuple(int(np.argmax(column == 0)) for column in squared.T)


def smallest(values: Squares, keep: int) -> list[int]:
    """The places of the `keep` smallest values, smallest first, ties by place."""
    return [int(place) for place in np.argsort(values, kind="stable")[:keep]]


def doubtful_places(values: Squares, keep: int) -> list[int]:
    """The places whose values are too close to tell which side of the `keep` smallest they are on.

    Equal values are doubtful too: two sums may round to the same float though the models differ.
    Only a value of 0 is sure, nothing is nearer.
    """
    order = np.argsort(values, kind="stable")
    last = values[order[keep - 1]]
    near = np.abs(values - last) <= TIE * last
    if last == 0 or not near[order[keep:]].any():
        return []
    return [int(place) for place in np.flatnonzero(near)]


def _mean_of_kept(models: Models, kept: Sequence[int]) -> Blend:
    """The mean of the kept models, summed in row order, with equal shares."""
    chosen = sorted(kept)
    shares = [0.0] * len(models)
    for index in chosen:
        shares[index] = 1.0 / len(chosen)
    return Blend(models.mean(chosen), tuple(shares))
