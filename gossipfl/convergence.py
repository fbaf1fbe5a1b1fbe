"""How far a fleet has come together, as one device sees it, from published models only.

All inputs are public, so the figures tell nothing that is not, whatever the privacy policy says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from gossipfl.aggregation import Merge, squared_distances
from gossipfl.parameters import Vector


@dataclass(frozen=True, slots=True)
class Convergence:
    """L2 norms.

    `distance` is the consensus distance (Kong et al. 2021) as one device sees it: the mean distance
    of the pulled models and its own to their merge, without the f largest and the f smallest, so
    that f liars cannot move it out of the range of honest ones. It estimates the distance to the
    mean of the fleet: a merge of k models lies nearer to each of them, and Krum's further away.
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
    merge: Merge,
    received: Sequence[Vector],
    own: Vector | None,
    before: Vector | None,
    initial: Vector,
    f: int,
    to_merge: Sequence[float] | None = None,
) -> Convergence:
    """Of a merge of the `received` and the own published model, float32[d] each. `before`: the base
    from which the own one was trained; `initial`: params0; f of the received may lie. `to_merge`:
    squared distances to the merge, own first if there is one, if they are known."""
    merged, shares = merge.parameters, list(merge.influence)
    rows = list(received)
    if own is not None:
        rows, shares = [own, *rows], [1.0 - sum(shares), *shares]
    if to_merge is None:
        to_merge = squared_distances(merged, rows)
    return Convergence(
        distance=_middle(to_merge, f) / math.sqrt(_shrinkage(shares)),
        travelled=_norm(merged, initial),
        step=None if before is None else _norm(merged, before),
        update=None if before is None or own is None else _norm(own, before),
    )


def _middle(squares: Sequence[float], f: int) -> float:
    """The mean root of all but the f largest and f smallest; of the one or two in the middle where
    that leaves none."""
    ordered = sorted(map(math.sqrt, squares))
    cut = min(f, max(0, len(ordered) - 1) // 2)
    return fmean(ordered[cut : len(ordered) - cut]) if ordered else 0.0


def _shrinkage(shares: Sequence[float]) -> float:
    """E|x_j - sum w_i x_i|^2 over E|x_j - mean|^2 for independent x: 1 - 2/k + sum w_i^2."""
    if not shares:
        return 1.0
    return 1.0 - 2.0 / len(shares) + sum(share * share for share in shares) or 1.0


def _norm(a: Vector, b: Vector) -> float:
    return math.sqrt(squared_distances(a, [b])[0])
