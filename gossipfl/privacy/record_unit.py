"""unit=record: DP-SGD with secret Poisson sampling (Abadi et al., CCS 2016; Mironov et al. 2019).

Each step takes every example with probability q, by itself and in secret; sums their gradients,
each clipped to C; adds noise of deviation z C; and divides by the lot, a public number, never by
how many were really taken. One example more changes a sum by C at most, in one
direction, and all that follows (momentum, the proximal term, the steps) works on noised sums and
the public base.

Sums of float32 gradients carry rounding errors, which one example more may change in every
coordinate. The noise is larger than z C by `SLACK` to cover them, and the sum is put on a grid
before the noise is added, so that low-order bits tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy.protection import RecordPrivacy
from gossipfl.privacy.release import Noised
from gossipfl.privacy.stream import BLOCK, Stream

SLACK = 2.0**-7
"""Share of the clip. A half is for the grid (2^-10) and the float32 sums: see tests of the trainer,
which measure them at a thousandth of it. The accountant is told z without the slack."""
GRID_SPARE_BITS = 10  # rounding moves a sum by sqrt(d) / 2 grid steps at most: 2^-11 of the clip

Sum = npt.NDArray[np.float64]
"""float64[d]"""
Chosen = npt.NDArray[np.intp]
"""Which examples a step takes: ascending indices. Secret."""
ClippedSum = Callable[[Vector, Chosen, float], Sum]
"""(parameters, chosen, clip) -> the sum of the gradients of `chosen`, each clipped to `clip` in L2.

What one example adds may depend on the parameters and on that example alone: one whose gradient is
not finite adds nothing, and does not spoil the others.
"""


@dataclass(frozen=True, slots=True)
class Descent:
    """The optimiser: SGD as in torch.optim.SGD, FedProx's term toward the base."""

    learning_rate: float
    momentum: float = 0.0
    prox: float = 0.0


def train(
    mode: RecordPrivacy,
    base: Vector,
    examples: int,
    clipped_sum: ClippedSum,
    descent: Descent,
    key: bytes,
) -> Noised:
    """`mode.steps` noised steps from `base`, float32[d]. `key`: 32 fresh secret bytes.

    If the steps diverge, the base comes back: that is decided by noised values alone.
    """
    stream = Stream(key)
    parameters = np.array(base, dtype=np.float32)
    velocity = np.zeros_like(parameters)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(mode.steps):
            total = clipped_sum(parameters, poisson(examples, mode.sample_rate, stream), mode.clip)
            step = noised_mean(total, mode, stream)
            if descent.prox:
                step += np.float32(descent.prox) * (parameters - base)
            if descent.momentum:
                velocity *= np.float32(descent.momentum)
                velocity += step
                step = velocity
            parameters -= np.float32(descent.learning_rate) * step
    if not np.isfinite(parameters).all():
        parameters = np.array(base, dtype=np.float32)
    return Noised(Cleared(parameters), mode)


def poisson(examples: int, rate: float, stream: Stream) -> Chosen:
    """Each of `examples` with probability `rate`, independently: ascending indices."""
    return np.flatnonzero(stream.uniform(examples) < rate)


def noised_mean(total: Sum, mode: RecordPrivacy, stream: Stream) -> Vector:
    """float32[d]: the sum on its grid, with noise, over the lot."""
    grid = grid_of(len(total))
    scale = mode.z * grid * (1.0 + SLACK)
    mean = np.empty(len(total), np.float32)
    for at in range(0, len(total), BLOCK):
        cut = slice(at, at + BLOCK)
        noisy = stream.noise(len(total[cut]), scale)
        noisy += np.rint(total[cut] * (grid / mode.clip))
        noisy *= mode.clip / grid / mode.lot
        mean[cut] = noisy
    return mean


def grid_of(count: int) -> int:
    """How many grid steps the clip is, for models of `count` parameters. Known to all."""
    return 1 << (GRID_SPARE_BITS + math.ceil(math.log2(max(1, count)) / 2))
