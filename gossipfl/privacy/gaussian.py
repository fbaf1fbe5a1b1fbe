"""The closed-form accountant of full Gaussian releases (unit=device).

One release with noise multiplier z is mu-GDP with mu = 1 / z, and releases compose by
mu = sqrt(sum 1 / z_k^2), also when each depends on those before (Dong, Roth, Su, "Gaussian
differential privacy", 2022, corollary 3.3). For all eps >= 0 (corollary 2.13; Balle and Wang 2018):

    delta(eps) = Phi(-eps / mu + mu / 2) - e^eps Phi(-eps / mu - mu / 2)

The two terms nearly cancel and e^eps overflows, so both are written with Mills' ratio
R(x) = Phi(-x) / phi(x): e^eps phi(b) = phi(a) for a = eps / mu - mu / 2, b = eps / mu + mu / 2,
hence delta = phi(a) (R(a) - R(b)). For small mu even that difference would lose digits: it is the
integral of -R'(x) = 1 - x R(x) from a to b, which is positive and smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

_SQRT_2PI = math.sqrt(2.0 * math.pi)
_FAR = 8.0  # from here on Mills' ratio by its continued fraction: erfc loses digits
_TERMS = 60  # of the continued fraction: to the last digit from x = 8 on
_SMALL = 0.5  # up to this mu the integral, which 12 points give to the last digit
_POINTS, _WEIGHTS = (part.tolist() for part in np.polynomial.legendre.leggauss(12))
_HALVINGS = 200  # of a bisection: ends earlier, when two neighbours are reached
_UP = 1.0 + 1e-12
"""Answers are rounded up by this factor: above what the formula itself loses."""


def compose(multipliers: Iterable[float]) -> float:
    """mu of releases with the noise multipliers z = sigma / (2 C). 0 if there are none."""
    return math.sqrt(math.fsum(1.0 / (z * z) for z in multipliers))


def delta_of(epsilon: float, mu: float) -> float:
    """delta at `epsilon` >= 0 of mu-GDP, `mu` >= 0; 0 to 1. mu may be infinite (no noise)."""
    if mu == 0.0:
        return 0.0
    if math.isinf(mu):
        return 1.0
    a = epsilon / mu - mu / 2.0
    b = epsilon / mu + mu / 2.0
    if mu <= _SMALL:
        found = (
            _density(a)
            * mu
            / 2.0
            * math.fsum(
                weight * _falling((a + b + mu * point) / 2.0)
                for point, weight in zip(_POINTS, _WEIGHTS, strict=True)
            )
        )
    elif a >= 0.0:
        found = _density(a) * (_mills(a) - _mills(b))
    else:
        found = 0.5 * math.erfc(a / math.sqrt(2.0)) - _density(a) * _mills(b)
    return min(1.0, max(0.0, found))


def epsilon_of(delta: float, mu: float) -> float:
    """The least epsilon with delta_of(epsilon, mu) <= delta, rounded up. 0 < delta < 1."""
    _require_delta(delta)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    if math.isinf(mu):
        return math.inf
    # Phi(-x) <= exp(-x^2 / 2) for x >= 0: at this epsilon the first term alone is below delta.
    high = mu * mu / 2.0 + mu * math.sqrt(-2.0 * math.log(delta))
    if not math.isfinite(high):
        return math.inf
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if not low < middle < high:
            break
        if delta_of(middle, mu) <= delta:
            high = middle
        else:
            low = middle
    return high * _UP


def mu_within(epsilon: float, delta: float) -> float:
    """The largest mu that is (epsilon, delta)-DP, rounded down. epsilon >= 0, 0 < delta < 1."""
    _require_delta(delta)
    low, high = 0.0, 1.0
    while delta_of(epsilon, high) <= delta:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if not low < middle < high:
            break
        if delta_of(epsilon, middle) <= delta:
            low = middle
        else:
            high = middle
    return low / _UP


def multiplier_for(releases: int, epsilon: float, delta: float) -> float:
    """The least z with which `releases` releases are (epsilon, delta)-DP together, rounded up."""
    if releases < 1:
        raise ValueError(f"{releases} releases")
    mu = mu_within(epsilon, delta)
    return math.sqrt(releases) / mu * _UP if mu > 0.0 else math.inf


def _density(x: float) -> float:
    return math.exp(-x * x / 2.0) / _SQRT_2PI


def _mills(x: float) -> float:
    """R(x) = Phi(-x) / phi(x), x >= -1."""
    if x < _FAR:
        return _SQRT_2PI * math.exp(x * x / 2.0) * 0.5 * math.erfc(x / math.sqrt(2.0))
    return 1.0 / (x + _tail(x))


def _falling(x: float) -> float:
    """-R'(x) = 1 - x R(x), x >= -1."""
    if x < _FAR:
        return 1.0 - x * _mills(x)
    tail = _tail(x)
    return tail / (x + tail)


def _tail(x: float) -> float:
    """1 / (x + 2 / (x + 3 / ...)): Laplace's continued fraction of 1 / R(x), less x."""
    tail = x
    for k in range(_TERMS, 1, -1):
        tail = x + k / tail
    return 1.0 / tail


def _require_delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, allowed above 0 and below 1")
