"""How far a fleet has come together, as one device sees it, from published models only.

All inputs are public, so the figures tell nothing that is not, whatever the privacy policy says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from gossipfl.aggregation import squared_distances
from gossipfl.parameters import Vector


@dataclass(frozen=True, slots=True)
class Convergence:
    """L2 norms.

    `distance` is the consensus distance (Kong et al. 2021) as one device sees it: of the pulled
    models and its own to their merge, and the median instead of the mean, which no minority of
    liars can move out of the range of honest ones.
    """

    distance: float
    travelled: float  # of the merge from params0
    step: float | None = None  # of the merge from the base before
    update: float | None = None  # of the own update from the base before

    @property
    def relative(self) -> float:
        """The distance over the way come: of no unit, and no model is near before it has learnt."""
        return self.distance / self.travelled if self.travelled > 0.0 else math.inf


def convergence(
    merge: Vector,
    received: Sequence[Vector],
    own: Vector | None,
    before: Vector | None,
    initial: Vector,
) -> Convergence:
    """Of a merge float32[d] of the `received` and the own published model. `before`: the base from
    which the own one was trained; `initial`: params0."""
    squares = squared_distances(merge, received if own is None else [own, *received])
    return Convergence(
        distance=math.sqrt(median(squares)) if squares else 0.0,
        travelled=_norm(merge, initial),
        step=None if before is None else _norm(merge, before),
        update=None if before is None or own is None else _norm(own, before),
    )


def _norm(a: Vector, b: Vector) -> float:
    return math.sqrt(squared_distances(a, [b])[0])
