"""Vectors as whole numbers mod 2^32, so that masks cancel exactly and sums are exact.

A value x of at most `reach` becomes rint(x / step), at most L = (2^31 - 1) // g in size, so the sum
of g of them never wraps. With reach 8 and 16 members a step is 6e-8: finer than float32 near 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gossipfl.parameters import Vector

Words = npt.NDArray[np.uint32]
"""uint32[d], arithmetic mod 2^32"""


def level(members: int) -> int:
    """L: the largest whole number that one member may put in."""
    return (2**31 - 1) // members


def step(reach: float, members: int) -> float:
    """What one whole number is worth, in units of the parameters."""
    return reach / level(members)


def quantise(vector: Vector, reach: float, members: int) -> Words:
    """uint32[d]. Values beyond `reach` count as `reach`. Raises ValueError on NaN or infinity."""
    if not np.isfinite(vector).all():
        raise ValueError("the vector holds NaN or infinity")
    most = level(members)
    steps = vector.astype(np.float64)
    steps *= most / reach
    np.rint(steps, out=steps)
    np.clip(steps, -most, most, out=steps)
    return steps.astype(np.int32).view(np.uint32)


def mean(total: Words, reach: float, members: int, survivors: int) -> Vector:
    """float32[d]: the mean of `survivors` vectors from their sum; `members` set the step."""
    wide = total.view(np.int32).astype(np.float64)
    wide *= step(reach, members) / survivors
    return wide.astype(np.float32)


def to_bytes(words: Words) -> bytes:
    """Little-endian, 4 bytes each: the object that a masked vector is."""
    return words.astype("<u4", copy=False).tobytes()


def from_bytes(data: bytes, count: int) -> Words:
    """uint32[count], read-only. Raises ValueError on another length."""
    if len(data) != 4 * count:
        raise ValueError(f"{len(data)} bytes for {count} values")
    return np.frombuffer(data, dtype="<u4").astype(np.uint32, copy=False)
