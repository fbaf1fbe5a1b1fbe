"""Means: plain, and weighted within bounds. Neither resists an attacker; they are the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gossipfl.aggregation.base import Blend, RuleError
from gossipfl.aggregation.linear import combine
from gossipfl.aggregation.models import Models
from gossipfl.parameters import Vector

WEIGHT_CAP = 4.0
"""No weight counts for more than this many times the median positive weight (a guess): whoever
declares a million examples gets at most four shares."""


def mean(models: Models, f: int) -> Blend:
    """The plain mean (FedAvg with equal weights). `f` is not used: one attacker can move it."""
    return Blend(models.mean(range(len(models))), (1.0 / len(models),) * len(models))


def bounded_shares(weights: Sequence[float], models: int) -> tuple[float, ...]:
    """Weights, one per row of N, capped at WEIGHT_CAP medians and scaled to the sum 1.

    Raises RuleError unless there are `models` finite weights, none negative, one positive at least.
    """
    if len(weights) != models:
        raise RuleError(
            f"weighted_mean: {len(weights)} weights for {models} models "
            "(one for each, the own model's first)"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise RuleError("weighted_mean: a weight is negative, infinite or not a number")
    positive = sorted(weight for weight in weights if weight > 0)
    if not positive:
        raise RuleError("weighted_mean: all weights are zero")
    median = positive[(len(positive) - 1) // 2]  # the lower one: half of the liars do not move it
    # In units of the median, so that neither huge nor tiny weights leave the range of a float.
    capped = [min(weight / median, WEIGHT_CAP) for weight in weights]
    total = math.fsum(capped)
    return tuple(weight / total for weight in capped)


def weighted_mean(rows: Sequence[Vector], weights: Sequence[float] | None) -> Blend:
    """The mean by bounded weights (FedAvg, McMahan 2017). No weights: all alike.

    Weights void the bounds on f, so this is for star mode and fleets that trust each other.
    """
    if weights is None:
        weights = [1.0] * len(rows)
    shares = bounded_shares(weights, len(rows))
    return Blend(combine(rows, shares), shares)
