"""The accountant of DP-SGD (unit=record): Poisson-subsampled Gaussians, composed from above.

One step with noise multiplier z and sampling rate q compares, for x in units of the clip,

    P = (1 - q) N(0, z^2) + q N(1, z^2)    and    Q = N(0, z^2),

in both directions: the example was there (P against Q) or was not (Q against P). Its privacy loss
ln(P / Q) is put on a grid by splitting the mass of each interval between its two ends so that both
P's and Q's mass are kept ("connect the dots", Doroshenko et al., PoPETs 2022): never optimistic,
and off by the square of the grid step only. Steps compose by convolution, done with one FFT
(Koskela et al., AISTATS 2020). What is cut off at the ends is charged to delta, and so is a bound
of what the FFT rounds and wraps around.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gossipfl.privacy.gaussian import epsilon_of

Floats = npt.NDArray[np.float64]

TAIL_SHARE = 1e-4
"""Of delta: what may be cut off. Costs about TAIL_SHARE / 10 of epsilon."""
STEPS_PER_DEVIATION = 24
"""Grid steps in one deviation of a single step's loss: adds at most 1/2000 to its variance."""
POINTS_MAX = 2**20  # of a grid: 16 MiB a temporary; beyond it the grid gets coarser, never unsafe
Z_FINE = 0.1  # below it sampling is not credited: losses are too far apart for one grid
SPREAD_MIN = 1e-12  # of a loss: below it there is none to speak of
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Spend:
    """`steps` steps with noise multiplier `z` and secret sampling rate `rate`."""

    z: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (self.z > 0.0 and 0.0 < self.rate <= 1.0 and self.steps >= 0):
            raise ValueError(f"no spend: z {self.z}, rate {self.rate}, steps {self.steps}")


@dataclass(frozen=True, slots=True)
class _Loss:
    """The loss of one step on the grid: `masses[k]` at (first + k) * step, the rest infinite."""

    first: int
    masses: Floats
    infinite: float


def epsilon_of_steps(delta: float, spends: Iterable[Spend]) -> float:
    """An upper bound of epsilon at `delta` of all steps together; 0 if there are none."""
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta is {delta}, allowed above 0 and below 1")
    merged: dict[tuple[float, float], int] = {}
    for spend in spends:
        if spend.steps:
            key = (spend.z, spend.rate)
            merged[key] = merged.get(key, 0) + spend.steps
    groups = [Spend(z, rate, steps) for (z, rate), steps in sorted(merged.items())]
    if not groups:
        return 0.0
    mu = math.sqrt(math.fsum(group.steps / group.z**2 for group in groups))
    without_sampling = epsilon_of(delta, mu)  # never less: sampling mixes the pair with equals
    if all(group.rate == 1.0 for group in groups) or min(g.z for g in groups) < Z_FINE:
        return without_sampling
    return min(without_sampling, max(_epsilon(delta, groups, there) for there in (True, False)))


def _epsilon(delta: float, groups: list[Spend], there: bool) -> float:
    tail = TAIL_SHARE * delta
    steps = sum(group.steps for group in groups)
    bounds = [_bounds(group, there, tail / (4.0 * steps)) for group in groups]
    grid = _grid_step(groups, bounds, there)
    losses = [
        _on_grid(group, there, grid, *bound) for group, bound in zip(groups, bounds, strict=True)
    ]
    first, masses, infinite = _composed(groups, losses, grid, tail / 2.0)
    return _smallest_epsilon(delta, first, masses, infinite, grid)


# --- one step -----------------------------------------------------------------------------------


def _loss_at(x: float, z: float, rate: float) -> float:
    """ln(P / Q) at x; grows with x."""
    exponent = (2.0 * x - 1.0) / (2.0 * z * z)
    if rate == 1.0:
        return exponent  # the general form would lose it, far down, in 1 - 1
    if exponent > 0.0:  # the larger term first, or it overflows
        return exponent + math.log(rate) + math.log1p((1.0 - rate) / rate * math.exp(-exponent))
    return math.log1p(rate * math.expm1(exponent))


def _bounds(group: Spend, there: bool, tail: float) -> tuple[float, float]:
    """(lowest, highest) loss: outside there is a mass of at most `tail` on each side."""
    far = _far(tail) * group.z
    low = _loss_at(-far, group.z, group.rate)
    high = _loss_at(far + 1.0, group.z, group.rate)
    if there:
        return low, high
    return -_loss_at(far, group.z, group.rate), -low


def _far(tail: float) -> float:
    """x with Phi(-x) <= tail: from Phi(-x) <= exp(-x^2 / 2) / 2."""
    return math.sqrt(max(0.0, -2.0 * math.log(2.0 * tail)))


def _grid_step(groups: list[Spend], bounds: list[tuple[float, float]], there: bool) -> float:
    """Fine enough for the group that counts most, coarse enough for the memory."""
    steps = sum(group.steps for group in groups)
    spread = wide = 0.0
    for group, (low, high) in zip(groups, bounds, strict=True):
        spread += group.steps * _variance(group, there, low, high)
        wide = max(wide, high - low)
    deviation = math.sqrt(spread / steps)
    step = max(SPREAD_MIN, deviation / STEPS_PER_DEVIATION)
    reach = wide + 24.0 * math.sqrt(spread)
    return max(step, 4.0 * reach / POINTS_MAX)


def _variance(group: Spend, there: bool, low: float, high: float) -> float:
    """Of one step's loss, from a coarse sum: it only sets the grid."""
    far = (high - low) / 4096.0
    coarse = _on_grid(group, there, max(far, SPREAD_MIN), low, high)
    values = (coarse.first + np.arange(len(coarse.masses))) * max(far, SPREAD_MIN)
    mean = float(np.dot(coarse.masses, values))
    found = float(np.dot(coarse.masses, (values - mean) ** 2))
    # The coarse grid itself adds up to a quarter of its step squared; a small loss is about q^2.
    z, rate = group.z, group.rate
    likely = rate * rate * math.expm1(min(1.0 / (z * z), 50.0))
    return min(found, likely) if likely < 0.01 else found


def _on_grid(group: Spend, there: bool, step: float, low: float, high: float) -> _Loss:
    """Interval by interval, P's and Q's mass split between the ends. From above at both tails."""
    z, rate = group.z, group.rate
    first, last = math.floor(low / step), math.ceil(high / step)
    edges: Floats = np.arange(first, last + 1, dtype=np.float64) * step
    if there:
        at = _where(edges, z, rate)
        zero, one = _mass(at / z), _mass((at - 1.0) / z)
        mine, theirs = (1.0 - rate) * zero + rate * one, zero
    else:
        at = _where(-edges, z, rate)  # falls as the loss grows
        zero, one = _mass(at / z), _mass((at - 1.0) / z)
        mine, theirs = zero, (1.0 - rate) * zero + rate * one
    # mine[0] lies below the first edge, mine[-1] above the last one.
    inner, other = mine[1:-1], theirs[1:-1]
    with np.errstate(divide="ignore", over="ignore"):
        upper = (inner - np.exp(edges[:-1] + np.log(other))) / -math.expm1(-step)
    upper = np.clip(upper, 0.0, inner)
    masses = np.zeros(len(edges))
    masses[:-1] += inner - upper
    masses[1:] += upper
    masses[0] += mine[0]
    return _Loss(first, masses, float(mine[-1]))


def _where(edges: Floats, z: float, rate: float) -> Floats:
    """x at which ln(P / Q) is each of `edges`; -inf where it is never so low."""
    if rate == 1.0:
        return z * z * edges + 0.5
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # e^l - 1 + q over q, logarithm: for large l without the overflow
        low = np.log1p(np.expm1(np.minimum(edges, 1.0)) / rate)
        high = edges - math.log(rate) + np.log1p(-(1.0 - rate) * np.exp(-np.maximum(edges, 1.0)))
        inside = np.where(edges <= 1.0, low, high)
    at = z * z * inside + 0.5
    return np.where(np.isnan(at), -np.inf, at)


def _mass(at: Floats) -> Floats:
    """N(0, 1)'s mass before at[0], between neighbours, and after at[-1]; `at` is monotone."""
    scaled = (at / math.sqrt(2.0)).tolist()
    below = 0.5 * np.array([math.erfc(-x) for x in scaled])
    above = 0.5 * np.array([math.erfc(x) for x in scaled])
    low, high = at[:-1], at[1:]
    left = (low <= 0.0) & (high <= 0.0)  # differences of small numbers keep their digits
    inner = np.where(left, np.diff(below), -np.diff(above))
    if len(at) > 1 and at[0] > at[-1]:
        return np.concatenate([[above[0]], np.abs(inner), [below[-1]]])
    return np.concatenate([[below[0]], np.abs(inner), [above[-1]]])


# --- all steps ----------------------------------------------------------------------------------


def _composed(
    groups: list[Spend], losses: list[_Loss], grid: float, tail: float
) -> tuple[int, Floats, float]:
    """(index of the first point, masses, mass at infinity) of the sum of all steps' losses."""
    infinite = math.fsum(g.steps * loss.infinite for g, loss in zip(groups, losses, strict=True))
    low = _chernoff(groups, losses, grid, -1.0, tail / 2.0)
    high = _chernoff(groups, losses, grid, 1.0, tail / 2.0)
    first, last = math.floor(low / grid), math.ceil(high / grid)
    widest = max(len(loss.masses) for loss in losses)
    size = 1 << max(last - first + 2, widest).bit_length()
    if size > 4 * POINTS_MAX:
        return first, np.zeros(0), 1.0  # no bound from here: that without sampling stands
    shape = np.ones(size // 2 + 1, np.complex128)
    start = 0
    for group, loss in zip(groups, losses, strict=True):
        shape *= np.fft.rfft(loss.masses, size) ** group.steps
        start += group.steps * loss.first
    circle = np.fft.irfft(shape, size)
    # Point k of the circle stands for start + k (modulo size): turn it so that `first` comes first.
    masses = np.roll(circle, start - first)
    # Beyond [first, last] lies a mass of `tail` at most; wherever it wrapped to, it is charged.
    steps = sum(group.steps for group in groups)
    length = float(np.sqrt(np.dot(masses, masses)))
    rounding = 4.0 * _EPS * math.log2(size) * steps * math.sqrt(size) * length
    return first, np.maximum(masses, 0.0), infinite + tail + rounding


def _chernoff(
    groups: list[Spend], losses: list[_Loss], grid: float, side: float, tail: float
) -> float:
    """A bound on the sum of losses, on one side, that is passed with probability `tail` at most.

    P(S >= s) <= exp(K(t) - t s) for every t > 0, K the sum of cumulants: the best of some t.
    """
    best = math.inf
    spread = 0.0
    logs = []
    for group, loss in zip(groups, losses, strict=True):
        values = side * (loss.first + np.arange(len(loss.masses))) * grid
        kept = loss.masses > 0.0
        logs.append((group.steps, np.log(loss.masses[kept]), values[kept]))
        mean = float(np.dot(loss.masses, values))
        spread += group.steps * float(np.dot(loss.masses, (values - mean) ** 2))
    target = -math.log(tail)
    about = math.sqrt(2.0 * target / max(spread, SPREAD_MIN**2))
    for power in range(-12, 5):
        t = about * 2.0 ** (power / 2.0)
        cumulant = 0.0
        for steps, log_masses, values in logs:
            exponents = log_masses + t * values
            top = float(exponents.max())
            cumulant += steps * (top + math.log(float(np.exp(exponents - top).sum())))
        best = min(best, (cumulant + target) / t)
    return side * best


def _smallest_epsilon(
    delta: float, first: int, masses: Floats, infinite: float, grid: float
) -> float:
    """The least epsilon >= 0 with infinite + sum over losses l > epsilon of
    (1 - e^(epsilon - l)) p(l) <= delta."""
    left = delta - infinite
    if left <= 0.0:
        return math.inf
    losses = (first + np.arange(len(masses))) * grid
    positive = losses > 0.0
    losses, masses = losses[positive], masses[positive]
    if not len(losses):
        return 0.0
    # above[k]: mass at losses[k] and beyond; tilted: the same times e^(losses[k] - l).
    above = np.cumsum(masses[::-1])[::-1]
    tilted, decay = 0.0, math.exp(-grid)
    for k in range(len(losses) - 1, -1, -1):
        tilted = float(masses[k]) + decay * tilted
        before = grid if k else float(losses[0])  # delta falls with epsilon: the last that fits
        if above[k] - math.exp(-before) * tilted > left:
            # Between the point before and losses[k]: above[k] - e^(eps - losses[k]) tilted = left.
            return float(max(0.0, losses[k] + math.log((above[k] - left) / tilted)))
    return 0.0
