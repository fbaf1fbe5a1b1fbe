"""The geometric median: the point with the smallest sum of distances to all models.

Robust up to half of the models (RFA, Pillutla 2022). Weiszfeld's algorithm moves a weighted mean of
the models, so its steps need only the distances between them: one pass over the models, then steps
over an n x n matrix, then one sum. Hence many steps cost as little as three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gossipfl.aggregation.base import Blend, RuleError
from gossipfl.aggregation.distances import Squares
from gossipfl.aggregation.models import Models

FAR = 100.0
"""Models farther than this many median distances from the most central one are left out (a guess).
Each would pull with the force of any other, but distances so unequal do not add up: the error of
one far distance grows to that of the near ones."""

CONVERGED = 1e-9
"""No weight changed by more in a step: below what float32 weights can show."""


@dataclass(frozen=True, slots=True)
class GeometricMedian:
    """Smoothed Weiszfeld from the mean of the models.

    steps: at most so many (a guess; random models need 10, and each costs microseconds).
    smoothing: a distance below this share of the median one counts as that share, so that a model
    at the very median does not divide by zero (RFA's nu, in units that fit any model; a guess).
    """

    steps: int = 100
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000 or not 0 < self.smoothing <= 1:
            raise RuleError("geometric_median: need 1 <= steps <= 10000 and 0 < smoothing <= 1")

    def __call__(self, models: Models, f: int) -> Blend:
        shares = tuple(float(share) for share in self._weights(models.pairwise()))
        return Blend(models.combine(shares), shares)

    def _weights(self, squared: Squares) -> Squares:
        """float64[n], summing to 1: what the median is made of."""
        distances = np.sqrt(squared)
        centre = distances[int(np.argmin(distances.sum(axis=1)))]
        scale = float(np.sort(centre)[len(centre) // 2])
        near: Squares = (centre <= FAR * scale).astype(np.float64)
        weights: Squares = near / near.sum()
        if scale == 0:  # more than half of the models are equal: they are the median
            return weights
        floor = (self.smoothing * scale) ** 2
        for _ in range(self.steps):
            to_models = squared @ weights
            to_models -= weights @ to_models / 2
            pull = near / np.sqrt(np.maximum(to_models, floor))
            last, weights = weights, pull / pull.sum()
            if np.abs(weights - last).max() <= CONVERGED:
                break
        return weights
