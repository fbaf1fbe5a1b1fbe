"""unit=device: a model's change from the public base, clipped, on an integer grid, with noise.

Why the bound holds. Let K = 2^r be the clip in grid units. The change becomes an integer vector k,
and sum k_i^2 <= K^2 is checked in whole numbers. If it does not hold, k is shortened by a factor
f < K / |k| with every coordinate rounded toward zero, so each |k_i| <= f |k_i| and the bound holds
again: no rounding of floats can break it. Any two data sets therefore give centres at most 2K
apart, whatever training did, and noise of scale 2 z K gives a Gaussian mechanism of mu = 1 / z
(Dong, Roth, Su 2022, theorem 2.7). Rounding at random comes before the noise and depends on
nothing but the stream, and mixtures of such pairs are no easier to tell apart.

A change that holds NaN or infinity counts as no change: noise goes out all the same, since a
publication that is missing would be a signal about the data.

Outputs are clamped to +-(REACH * scale - K) grid units, which is the same set for every input.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy.protection import DevicePrivacy
from gossipfl.privacy.release import Noised
from gossipfl.privacy.stream import BLOCK, REACH, Stream

Steps = npt.NDArray[np.int64]
"""int64[d]: a change in grid steps"""

GRID_BITS_MIN = 12
GRID_SPARE_BITS = 4
"""The clip is 2^4 sqrt(d) grid steps or more: random rounding, of variance 1/4 a coordinate, then
lengthens a change of full length by less than 1/2000."""
COUNT_MAX = 2**32  # then (K + sqrt d)^2 stays below 2^63: squares are summed in int64


def noised(mode: DevicePrivacy, base: Vector, trained: Vector, key: bytes) -> Noised:
    """base + clip(trained - base) + noise, float32[d]. `key`: 32 fresh secret bytes.

    `base` is public and finite. `trained` may hold anything. Raises ValueError if the base is not
    finite or the shapes differ: both are known to all, so that tells nothing.
    """
    if base.shape != trained.shape or base.ndim != 1 or not 0 < len(base) <= COUNT_MAX:
        raise ValueError(f"a base of shape {base.shape} and a model of shape {trained.shape}")
    if not np.isfinite(base).all():
        raise ValueError("the base holds NaN or infinity")
    grid = grid_of(len(base))
    stream = Stream(key)
    centre = clipped(base, trained, mode.clip, grid, stream)
    scale = 2.0 * mode.z * grid
    limit = float(math.floor(REACH * scale) - grid)
    step = mode.clip / grid
    vector = np.empty(len(base), np.float32)
    for at in range(0, len(base), BLOCK):
        cut = slice(at, at + BLOCK)
        noisy = stream.noise(len(base[cut]), scale)
        noisy += centre[cut]
        np.clip(noisy, -limit, limit, out=noisy)
        # What is left is arithmetic on published values, whatever it rounds.
        noisy *= step
        noisy += base[cut]
        vector[cut] = noisy
    return Noised(Cleared(vector), mode)


def grid_of(count: int) -> int:
    """K: how many grid steps the clip is, for models of `count` parameters. Known to all."""
    bits = GRID_SPARE_BITS + math.ceil(math.log2(max(1, count)) / 2)
    return 1 << max(GRID_BITS_MIN, bits)


def clipped(base: Vector, trained: Vector, clip: float, grid: int, stream: Stream) -> Steps:
    """int64[d]: the change in steps of clip / grid, of length `grid` at most, exactly."""
    uniform = stream.uniform_coarse(len(base))  # drawn in any case: the stream tells nothing either
    with np.errstate(invalid="ignore", over="ignore"):
        change = trained.astype(np.float64)
        change -= base
        # Squares of float32 differences stay far below the largest float64, and none is lost: what
        # is not finite here was not finite before. Not by np.dot: it wakes threads that then wait
        # in a circle, which on a busy machine costs as much as all the rest.
        length = math.sqrt(float(np.einsum("i,i->", change, change)))
    if not math.isfinite(length):
        return np.zeros(len(base), np.int64)
    change *= (grid / clip) * min(1.0, clip / length if length > 0.0 else 1.0)
    change += uniform
    np.floor(change, out=change)
    return shortened(change.astype(np.int64), grid)


def shortened(steps: Steps, most: int) -> Steps:
    """`steps`, toward zero until its L2 norm is `most` at the utmost, in whole numbers.

    Its squares must sum to less than 2^63.
    """
    square = int(np.dot(steps, steps))
    if square <= most * most:
        return steps
    # Two units in the last place below the exact quotient, and one of the product: still below.
    factor = most / math.sqrt(square) * (1.0 - 2.0**-50)
    short: Steps = np.trunc(steps * factor).astype(np.int64)
    return short
