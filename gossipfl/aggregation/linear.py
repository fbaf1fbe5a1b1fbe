"""Means: plain, and weighted within bounds. Neither resists an attacker; they are the baseline.

Sums run in float32 in row order, value by value, so every machine gets the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gossipfl.aggregation.base import Blend, RuleError
from gossipfl.parameters import Vector

STREAM_CHUNK = 3 << 15
"""Values per chunk where one buffer meets a stream of rows: two chunks are 768 kB. Measured:
smaller ones cost calls (65,536: 5 % more time, 16,384: 25 %), larger ones gain nothing."""

WEIGHT_CAP = 4.0
"""No weight counts for more than this many times the median positive weight (a guess): whoever
declares a million examples gets at most four shares."""


def mean_of(rows: Sequence[Vector]) -> Vector:
    """float32[d]: the plain mean of the rows."""
    count = rows[0].size
    out = np.empty(count, np.float32)
    scale = np.float32(1.0 / len(rows))
    for start in range(0, count, STREAM_CHUNK):
        end = start + STREAM_CHUNK
        part = out[start:end]
        if len(rows) == 1:
            part[:] = rows[0][start:end]
            continue
        np.add(rows[0][start:end], rows[1][start:end], out=part)
        for row in rows[2:]:
            np.add(part, row[start:end], out=part)
        np.multiply(part, scale, out=part)
    return out


def mean(rows: Sequence[Vector], f: int) -> Blend:
    """The plain mean (FedAvg with equal weights). `f` is not used: one attacker can move it."""
    return Blend(mean_of(rows), (1.0 / len(rows),) * len(rows))


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
        return mean(rows, 0)
    shares = bounded_shares(weights, len(rows))
    count = rows[0].size
    out = np.zeros(count, np.float32)
    buffer = np.empty(min(count, STREAM_CHUNK), np.float32)
    counted = [(row, np.float32(share)) for row, share in zip(rows, shares, strict=True) if share]
    for start in range(0, count, STREAM_CHUNK):
        part = out[start : start + STREAM_CHUNK]
        product = buffer[: part.size]
        for row, share in counted:
            np.multiply(row[start : start + STREAM_CHUNK], share, out=product)
            np.add(part, product, out=part)
    return Blend(out, shares)
