"""A lower bound of epsilon from one run with many canaries (Steinke, Nasr, Jagielski, 2023).

Each canary is in or out by a fair coin. Whoever sees the outputs guesses `guesses` of the coins and
abstains from the rest. Under (epsilon, delta)-DP the number of right guesses is hardly above a
binomial with chance e^epsilon / (1 + e^epsilon) (theorem 5.2); if more were right, epsilon is
larger. The bound is too low by nature: a bound below the claim proves nothing, one above it
disproves the claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
EPSILON_MAX = 20.0  # nothing above can be shown with as few canaries as are affordable
_HALVINGS = 40


def correct_guesses(
    scores: npt.NDArray[np.float64], coins: npt.NDArray[np.bool_], guesses: int
) -> int:
    """The highest half of `guesses` is said to be in, the lowest half out: how many are right.

    Ties are broken against the guesser's luck: by position, which coins know nothing of.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(coins[order[len(order) - half :]].sum() + (~coins[order[:half]]).sum())


def epsilon_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """With `confidence`, epsilon is at least this. 0 to EPSILON_MAX."""
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"{correct} right of {guesses} guesses about {canaries} canaries")
    chance = 1.0 - confidence
    if _p_value(0.0, canaries, guesses, correct, delta) > chance:
        return 0.0
    low, high = 0.0, EPSILON_MAX
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if _p_value(middle, canaries, guesses, correct, delta) <= chance:
            low = middle
        else:
            high = middle
    return low


def _p_value(epsilon: float, canaries: int, guesses: int, correct: int, delta: float) -> float:
    """P[so many right] under (epsilon, delta)-DP: f(v) + 2 m delta max_i (f(v - i) - f(v)) / i."""
    masses = _binomial(guesses, epsilon)
    tail = math.fsum(masses[correct:])
    steepest = summed = 0.0
    for i in range(1, correct + 1):
        summed += masses[correct - i]
        steepest = max(steepest, summed / i)
    return min(1.0, tail + 2.0 * canaries * delta * steepest)


def _binomial(count: int, epsilon: float) -> Sequence[float]:
    """P[k right] for k = 0..count, each with chance e^epsilon / (1 + e^epsilon)."""
    right = -math.log1p(math.exp(-epsilon))
    wrong = right - epsilon
    whole = math.lgamma(count + 1)
    return [
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n + 1) + k * right + n * wrong)
        for k, n in zip(range(count + 1), range(count, -1, -1), strict=True)
    ]
