"""What stands out in a pull and what it looks like: measured once a merge, judged without memory.

Statistical detectors: distance, norm, direction, copies, collusion; the behavioural ones are in
`conduct`. All are pure functions that name a `Cause`; what follows from it, and how often it must
be seen, is `reputation`'s business. Distances count by the fleet's own spread and by the way that
it has come, never by a fixed number: under strong skew honest devices lie far apart, and in a probe
a fixed multiple silenced them (86.8 to 75.4 %). Nearness is never a merit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from gossipfl.aggregation import between, squared_distances
from gossipfl.aggregation.collapse import CLUSTER, DUPLICATE, FAR, RECEIVED_MIN, scale
from gossipfl.errors import Fault
from gossipfl.parameters import Vector

Squares = npt.NDArray[np.float64]

CHUNK = 1 << 15
"""Values of a row that are looked at together: five such parts are 640 kB and stay in cache."""
PEERS_MIN = 4  # below that a median means nothing
FAR_RATIO = 3.0
"""An outlier is at least so many times the median distance: as the first probes, and never less."""
FAR_WAY = 0.5
"""And at least so far away as this part of the way that the merge has come from params0. The
fleet's spread shrinks for ever as it agrees, what a device with unlike data learns in a round does
not: by spread alone it stands apart in the end, though it is near. The way come is public, the same
for a joiner, and no liar whom the rule refuses can stretch it; the size of the own steps differs
tenfold between honest devices. In 16 honest histories of seven simulated devices (digits, MLP,
Dirichlet 0.1 to 0.5, 120 rounds and more) somebody was shut out at the end of 16 without this, of
3 with a quarter, of 1 with a third or more, that one for going backward. A liar may lie nearer by
this without being called far; the rule refuses it all the same, and who goes against the merges is
called at any distance."""
GAP_MIN = 1.5
GAP_POWER = 1.0
"""And so many times as far as the farthest that is none; or, where these spread wider, by this
power of what the farthest of them exceeds the median by. From lock-step probes (20 devices on
digits, softmax and MLP, Dirichlet 0.1 to IID, 32 honest histories and 112 beside liars): a power of
0.75 shut out more than twice as many honest devices as 1, nearly all of them at Dirichlet 0.1.
`script/bench reputation` counts them on the real node."""
BACKWARD_SPREADS = 2.5
BACKWARD = -0.05
SPREAD_MIN = 0.1
MAD_TO_SIGMA = 1.4826  # of a normal distribution
BACKWARD_PEERS_MIN = 6
"""Backward is who steps against the merge (a cosine below BACKWARD) and lies so many spreads below
the median and one below the next; the spread is that of the fleet's own cosines (median absolute
deviation times 1.48, at least SPREAD_MIN), of so many peers or more. In the same probes this found
most inner product liars at Dirichlet 0.1, where distance finds few, and hardly more honest devices
than 3 spreads, which found half of these liars."""
AGAINST = -0.3  # a model whose cosine with the merge is below points the other way: guess
WITH_MERGE = 0.5
"""Where models have this cosine with the merge at the median, one that points the other way is an
outlier at any distance. Models share a base, so honest ones do not oppose it (same histories)."""
NORM_GAP = (
    1.5  # an outlier whose norm also exceeds the others' by this is called one of norm: guess
)


class Cause(StrEnum):
    """Why a peer is suspected. The value is what people read and programs compare."""

    EQUIVOCATION = "equivocation"
    FORGED = "forged"
    MALFORMED = "malformed"
    DIRECTION = "direction"
    NORM = "norm"
    FAR = "far"
    COLLUSION = "collusion"
    COPIES = "copies"
    STALE = "stale"
    WITHHELD = "withheld"
    SILENT = "silent"
    SLOW = "slow"


OF_FAULT: dict[Fault, Cause | None] = {
    Fault.BAD_SIGNATURE: Cause.FORGED,
    Fault.WRONG_DIGEST: Cause.FORGED,
    Fault.BAD_EVIDENCE: Cause.FORGED,
    Fault.WRONG_FLEET: Cause.FORGED,
    Fault.WRONG_DEVICE: Cause.FORGED,
    Fault.WRONG_ROLE: Cause.FORGED,
    Fault.TLS_MISMATCH: Cause.FORGED,
    Fault.NOT_FINITE: Cause.NORM,
    Fault.NORM_BOUND: Cause.NORM,
    Fault.MALFORMED: Cause.MALFORMED,
    Fault.UNKNOWN_TYPE: Cause.MALFORMED,
    Fault.OVERSIZED: Cause.MALFORMED,
    Fault.WRONG_LENGTH: Cause.MALFORMED,
    Fault.TRUNCATED: Cause.MALFORMED,
    Fault.FALSE_SUM: Cause.FORGED,
    Fault.WITHHELD_CHAIN: Cause.WITHHELD,
    Fault.REPLAYED_SEQ: Cause.STALE,
    Fault.STALE: Cause.STALE,
    Fault.EQUIVOCATION: Cause.EQUIVOCATION,
    Fault.STALLED: None,
    Fault.UNREACHABLE: None,
    Fault.REFUSED: None,
    Fault.OTHER_LINEAGE: None,
    Fault.UNKNOWN_MEMBER: None,
    Fault.EXPIRED_MEMBER: None,
    Fault.REVOKED_MEMBER: None,
}
"""What a fault points to; None for what is no misbehaviour: a bad link, an old membership."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One received model beside the others of its pull. Distances and norms are L2."""

    distance: float  # to the merge
    step: float  # from the base before the round
    norm: float
    towards: float  # cosine of its step with the merge's step; 0 if one of them is nil
    alike: float  # cosine of the model with the merge
    share: float
    """Leave-one-out: the part of the step from base to merge that is missing if its vote stays at
    the base. Over all devices, the own one included, they make 1."""
    crowd: int | None = None  # others that it clusters with; None: the pull was too small to tell
    twin: int | None = None  # the nearest other row, if it is a duplicate


# --- measuring ----------------------------------------------------------------------------------


def measure(
    own: Vector,
    before: Vector,
    merge: Vector,
    received: Sequence[Vector],
    influence: Sequence[float],
    squared: Squares | None = None,
    to_merge: Sequence[float] | None = None,
) -> tuple[Traits, ...]:
    """What the received rows are like. From published models only.

    before: the base of this round; merge: what the rule made; all float32[d]. influence: one share
    for each received row. If they are known already: squared float64[m + 1, m + 1], distances
    between the own and the received rows, and to_merge, those of the received rows to the merge.
    """
    m = len(received)
    if squared is None and m >= RECEIVED_MIN:
        squared = between(own, received)
    if to_merge is None:
        to_merge = squared_distances(merge, received)
    found = _products(before, merge, received)
    travelled, length = found[0, m], found[2, m]
    crowds: Sequence[int | None] = [None] * m
    twins = crowds
    if squared is not None:
        crowds, twins = crowding(squared[1:, 1:], squared[0, 1:], found[0, :m] > 0.0)
    return tuple(
        Traits(
            distance=math.sqrt(to_merge[i]),
            step=math.sqrt(stepped),
            norm=math.sqrt(norm),
            towards=_cosine(along, stepped, travelled),
            alike=_cosine(product, norm, length),
            share=float(influence[i] * along / travelled) if travelled > 0.0 else 0.0,
            crowd=crowds[i],
            twin=twins[i],
        )
        for i, (stepped, along, norm, product) in enumerate(found[:, :m].T)
    )


def _products(before: Vector, merge: Vector, rows: Sequence[Vector]) -> Squares:
    """float64[4, m + 1] in one pass over the rows x, the merge y being the last one.

    |x - before|^2, (x - before)(y - before), |x|^2 and xy: float32 in chunks, float64 over them.
    """
    total = np.zeros((4, len(rows) + 1))
    step, away = np.empty((2, min(CHUNK, merge.size)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, merge.size, CHUNK):
            end = start + CHUNK
            base, target = before[start:end], merge[start:end]
            step, away = step[: base.size], away[: base.size]
            np.subtract(target, base, out=step)
            for index, row in enumerate([*rows, merge]):
                values = row[start:end]
                np.subtract(values, base, out=away)
                total[0, index] += away.dot(away)
                total[1, index] += away.dot(step)
                total[2, index] += values.dot(values)
                total[3, index] += values.dot(target)
    return total


def _cosine(product: float, a: float, b: float) -> float:
    return float(product / math.sqrt(a * b)) if a > 0.0 and b > 0.0 else 0.0


def crowding(
    squared: Squares, from_own: Squares, trained: npt.NDArray[np.bool_]
) -> tuple[list[int | None], list[int | None]]:
    """Near copies: how many others lie within CLUSTER s_k of each row, and its twin.

    squared float64[m, m] between rows, from_own float64[m], trained bool[m]: whether a row differs
    from the base at all; those that do not are no copies of each other. s_k is that of `collapse`:
    far rows do not take part in it, or noisy ones would inflate it and honest rows become copies.
    """
    m = len(from_own)
    none: tuple[list[int | None], list[int | None]] = ([None] * m, [None] * m)
    if m < RECEIVED_MIN:
        return none
    unit = scale(squared, np.flatnonzero(from_own <= FAR**2 * np.median(from_own)))
    if unit <= 0.0:
        return none
    others = squared + np.diag(np.full(m, np.inf))
    others[~trained, :] = others[:, ~trained] = np.inf
    crowds = (others <= (CLUSTER * unit) ** 2).sum(axis=1)
    nearest = np.argmin(others, axis=1)
    twins = [
        int(nearest[i]) if others[i, nearest[i]] <= (DUPLICATE * unit) ** 2 else None
        for i in range(m)
    ]
    return [int(count) for count in crowds], twins


# --- judging ------------------------------------------------------------------------------------


def apart(distances: Sequence[float], most: int, way: float = 0.0) -> set[int]:
    """The rows above the widest gap, if there is one: at most `most`, far, and well apart.

    With d_in the farthest row below the gap, d_mid the median of all and d_out the nearest above:
    d_out >= FAR_RATIO d_mid and d_out >= d_in max(GAP_MIN, (d_in / d_mid)^GAP_POWER), and
    d_out >= FAR_WAY `way`, the distance of the merge from params0 in the same unit (0: unknown).
    """
    m = len(distances)
    if m < PEERS_MIN or most < 1:
        return set()
    order = sorted(range(m), key=lambda i: distances[i])
    middle = distances[order[(m - 1) // 2]]
    if middle <= 0.0:
        return set()
    best, cut = 0.0, m
    far = max(FAR_RATIO * middle, FAR_WAY * way)
    for first in range(max(m - most, (m - 1) // 2 + 1), m):
        inner, outer = distances[order[first - 1]], distances[order[first]]
        wide = outer / inner
        least = max(GAP_MIN, (inner / middle) ** GAP_POWER)
        if outer >= far and wide >= least and wide > best:
            best, cut = wide, first
    return set(order[cut:])


def opposed(cosines: Sequence[float], most: int) -> set[int]:
    """The rows whose models point away from the merge while most point its way; at most `most`."""
    m = len(cosines)
    if m < PEERS_MIN or sorted(cosines)[(m - 1) // 2] < WITH_MERGE:
        return set()
    found = {i for i, cosine in enumerate(cosines) if cosine < AGAINST}
    return found if len(found) <= most else set()


def backward(cosines: Sequence[float], most: int) -> set[int]:
    """The rows whose steps go against the merge's, far below what the fleet's spread explains: at
    most `most`, below the widest gap."""
    m = len(cosines)
    if m < BACKWARD_PEERS_MIN or most < 1:
        return set()
    order = sorted(range(m), key=lambda i: -cosines[i])
    half = (m - 1) // 2
    middle = sorted(cosines)[half]
    spread = max(SPREAD_MIN, MAD_TO_SIGMA * sorted(abs(c - middle) for c in cosines)[half])
    best, cut = spread, m
    for first in range(max(m - most, half + 1), m):
        inner, outer = cosines[order[first - 1]], cosines[order[first]]
        low = min(BACKWARD, middle - BACKWARD_SPREADS * spread)
        if outer <= low and inner - outer >= best:
            best, cut = inner - outer, first
    return set(order[cut:])


def named(traits: Traits, largest_norm: float) -> Cause:
    """What an outlier is called. `largest_norm`: of those in its pull that are none."""
    if traits.alike < AGAINST or traits.towards < AGAINST:
        return Cause.DIRECTION
    return Cause.NORM if traits.norm > NORM_GAP * largest_norm else Cause.FAR
