"""The heavy steps of a group sum, from an effect to the event that answers it.

Like training and merging they run in a worker thread, or inline in the simulator. A vector without
its masks is in the node's memory only, and in what `SumMask` carries to the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.groups import grid
from gossipfl.groups.masks import Mask, apply, uncover
from gossipfl.groups.plan import Plan
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.privacy import Summed, summed


@dataclass(frozen=True, slots=True)
class SumMask:
    """Put the masks on this vector: SumMasked."""

    job: int
    vector: Vector
    masks: tuple[Mask, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class SumUncover:
    """Add these masked vectors up and take the masks off: SumUncovered."""

    job: int
    vectors: tuple[bytes, ...]
    masks: tuple[Mask, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class SumMasked:
    """`data` is fit to be served, `name` is its digest."""

    job: int
    name: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SumUncovered:
    """The mean of those in the sum. None: the vectors were too few to be called a sum."""

    job: int
    mean: Summed | None
    members: int


Step = SumMask | SumUncover


def sum_step(effect: Step) -> SumMasked | SumUncovered:
    match effect:
        case SumMask():
            return _mask(effect)
        case SumUncover():
            return _uncover(effect)


def _mask(effect: SumMask) -> SumMasked:
    plan = effect.plan
    words = apply(grid.quantise(effect.vector, plan.reach, plan.size), effect.masks)
    data = grid.to_bytes(words)
    return SumMasked(effect.job, digest(data), data)


def _uncover(effect: SumUncover) -> SumUncovered:
    plan, count = effect.plan, len(effect.vectors)
    if count < plan.threshold:
        return SumUncovered(effect.job, None, count)
    rows = [grid.from_bytes(data, plan.count) for data in effect.vectors]
    total = uncover(rows, effect.masks)
    mean = grid.mean(total, plan.reach, plan.size, count)
    return SumUncovered(effect.job, summed(mean, count, plan.threshold), count)
