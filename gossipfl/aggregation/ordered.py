"""Rules by coordinate: median and trimmed mean (Yin 2018, BRIDGE).

Each chunk of coordinates passes a pruned min/max network (network.py) while it is in cache. Sorting
or partitioning along the rows is ten times slower. Everything is done value by value in a fixed
order, so every machine gets the same bits.

A row takes part at a coordinate when its value is among the kept ranks. Rows tied at the edge of
the kept ranks divide what the edge has left evenly, so a row's influence does not depend on its
place in the list.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gossipfl.aggregation.base import Blend, NotFinite, all_finite
from gossipfl.aggregation.means import mean
from gossipfl.aggregation.models import Models
from gossipfl.aggregation.network import Program, program
from gossipfl.parameters import Matrix, Vector

NETWORK_FLOATS = 1 << 19
"""Values in all registers of a chunk together: 2 MiB. Measured with a second-level cache of 1 MiB:
half of it costs 10 % (more calls), twice 12 % (more misses)."""

MIXED_FLOATS = 1 << 20
"""Values in all models of a chunk and in what `Models.parts` needs to make them: 4 MiB. Shorter
chunks cost calls: measured for 50 mixed models, half of it 30 % more time, twice 15 % less."""

TIED_BLOCK = 1 << 12
"""Coordinates with ties that are looked at together: few by nature, all of them after nnm, where
models with the same neighbours become equal. Bounds the memory that this takes."""

Mask = npt.NDArray[np.bool_]


def median(models: Models, f: int) -> Blend:
    """The coordinate-wise median; of an even number of models the mean of the middle two."""
    return _ranks(models, (len(models) - 1) // 2, len(models) // 2 + 1)


def trimmed_mean(models: Models, f: int) -> Blend:
    """The coordinate-wise mean without the f smallest and the f largest values."""
    if f == 0:
        return mean(models, 0)
    return _ranks(models, f, len(models) - f)


def chunk_length(models: int, scratch: int = 0) -> int:
    """Coordinates per chunk that keep so many models, and scratch for their values, in cache."""
    network = max(NETWORK_FLOATS // (models + 1) // 1024, 1) * 1024
    return min(network, max(MIXED_FLOATS // (models + scratch), 1024))


def _ranks(models: Models, low: int, high: int) -> Blend:
    """The mean of ranks low..high-1 at each coordinate, and each model's share of it."""
    n, kept, count = len(models), high - low, models.size
    plan = program(n, low, high)
    length = min(chunk_length(n, models.scratch), count)
    scratch = np.empty((plan.scratch, length), np.float32)
    masks = np.empty((n + 1, length), np.bool_)
    out = np.empty(count, np.float32)
    taken = np.zeros(n)
    for start, inputs in models.parts(length):
        # NaN would show in the output, but an infinite value would be trimmed in silence.
        _require_finite(inputs)
        part = out[start : start + length]
        lowest, highest = _merge_chunk(plan, inputs, list(scratch[:, : part.size]), part)
        taken += _taken(inputs, lowest, highest, (low, high), masks[:, : part.size])
    return Blend(out, tuple(float(share) for share in taken / (kept * count)))


def _require_finite(inputs: list[Vector]) -> None:
    """Raises NotFinite if a value is NaN or infinite, which a sum of squares shows."""
    if math.isfinite(sum(float(values.dot(values)) for values in inputs)):
        return
    if not all(all_finite(values) for values in inputs):  # it may have been an overflow
        raise NotFinite


def _merge_chunk(
    plan: Program, inputs: list[Vector], scratch: list[Vector], out: Vector
) -> tuple[Vector, Vector]:
    """Writes the mean of the kept ranks to `out`; returns the lowest and the highest kept value."""
    registers = inputs + scratch
    for smaller, left, right, target in plan.steps:
        if smaller:
            np.minimum(registers[left], registers[right], out=registers[target])
        else:
            np.maximum(registers[left], registers[right], out=registers[target])
    lowest, highest = registers[plan.kept[0]], registers[plan.kept[-1]]
    if len(plan.kept) == 1:
        out[:] = lowest
        return lowest, highest
    np.add(lowest, highest, out=out)
    for index in plan.kept[1:-1]:
        np.add(out, registers[index], out=out)
    np.multiply(out, np.float32(1.0 / len(plan.kept)), out=out)
    if len(plan.kept) > 2:
        # Rounding must not push the mean of equal values out of what honest devices sent.
        np.maximum(out, lowest, out=out)
        np.minimum(out, highest, out=out)
    return lowest, highest


def _taken(
    inputs: list[Vector], lowest: Vector, highest: Vector, ranks: tuple[int, int], masks: Mask
) -> npt.NDArray[np.float64]:
    """How many coordinates' slots each row filled in this chunk: float64[m'], sum kept x length."""
    slots = ranks[1] - ranks[0]
    counts = np.empty(len(inputs))
    other = masks[-1]
    for index, values in enumerate(inputs):
        within = masks[index]  # left behind for the ties
        if slots == 1:
            np.equal(values, lowest, out=within)
        else:
            np.greater_equal(values, lowest, out=within)
            np.less_equal(values, highest, out=other)
            np.logical_and(within, other, out=within)
        counts[index] = np.count_nonzero(within)
    if counts.sum() == slots * lowest.size:  # at least `slots` rows lie within everywhere
        return counts
    narrow = np.uint8 if len(inputs) < 256 else np.uint32
    claims = masks[:-1].view(np.uint8).sum(axis=0, dtype=narrow)
    # Parameters that nobody has trained yet are equal everywhere: common, and simple to divide.
    alike = (claims == len(inputs)) & (lowest == highest)
    tied = np.flatnonzero((claims != slots) & ~alike)
    n_alike = int(np.count_nonzero(alike))
    counts -= n_alike - n_alike * slots / len(inputs)
    for start in range(0, tied.size, TIED_BLOCK):
        some = tied[start : start + TIED_BLOCK]
        counts -= np.count_nonzero(masks[:-1, some], axis=1)
        at = np.stack([values[some] for values in inputs])
        counts += _divided(at, lowest[some], highest[some], ranks)
    return counts


def _divided(
    at: Matrix, bottom: Vector, top: Vector, ranks: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """As `_taken`, for coordinates where more rows lie within than there are slots.

    at float32[m', t]: the values there; bottom and top float32[t]: the edges of the kept ranks. The
    slots at an edge are divided evenly among the rows that lie on it.
    """
    low, high = ranks
    slots = high - low
    at_bottom, at_top = at == bottom, at == top
    inside = (at > bottom) & (at < top)
    n_bottom, n_top = np.count_nonzero(at_bottom, axis=0), np.count_nonzero(at_top, axis=0)
    below = np.count_nonzero(at < bottom, axis=0)
    flat = bottom == top
    bottom_slots = np.where(flat, slots, below + n_bottom - low)
    top_slots = np.where(flat, 0, slots - np.count_nonzero(inside, axis=0) - bottom_slots)
    shares = np.count_nonzero(inside, axis=1) + at_bottom @ (bottom_slots / n_bottom)
    return np.asarray(shares + at_top @ (top_slots / n_top), np.float64)
