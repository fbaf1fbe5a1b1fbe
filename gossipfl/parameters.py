"""Flat model parameters and their layout.

A model is one float32 vector of length `count`; a layout says which slice is which tensor. Peers
merge vectors only when their layouts are equal, so a layout has a digest.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

from gossipfl.errors import Fault, PeerError

Vector = npt.NDArray[np.float32]
"""float32[d]"""
Matrix = npt.NDArray[np.float32]
"""float32[m, d]: one row per model"""
Cleared = NewType("Cleared", npt.NDArray[np.float32])
"""float32[d] that may leave this device: `privacy.release` alone makes it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named slice of the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors in order, without gaps. `digest` is what two peers must agree on."""

    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        at = 0
        for tensor in self.tensors:
            if tensor.offset != at:
                raise ValueError(f"tensor {tensor.name!r} starts at {tensor.offset}, not at {at}")
            at += tensor.size

    @property
    def count(self) -> int:
        # There are no gaps, so that the last one's end is all there is.
        return self.tensors[-1].offset + self.tensors[-1].size if self.tensors else 0

    @property
    def digest(self) -> bytes:
        """SHA-256 over names, shapes and offsets, in order."""
        text = "\n".join(
            f"{t.name} {'x'.join(str(n) for n in t.shape)} {t.offset}" for t in self.tensors
        )
        return hashlib.sha256(b"gossipfl layout 1\n" + text.encode()).digest()


def require_finite(vector: npt.NDArray[Any], what: str = "update") -> None:
    """Raises PeerError(NOT_FINITE) if any value is NaN or infinite. One pass, no temporaries."""
    # NaN and infinity survive a sum of squares; so may an overflow of finite values, hence the
    # second look. Neither is worth numpy's warning: hostile updates would fill the logs with it.
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.dot(vector, vector)
    if not np.isfinite(square) and not np.isfinite(vector).all():
        raise PeerError(Fault.NOT_FINITE, f"the {what} holds NaN or infinity")


def to_bytes(vector: Vector) -> bytes:
    """Little-endian float32, the form that is hashed, stored and sent."""
    return vector.astype("<f4", copy=False).tobytes()


def from_bytes(data: bytes | memoryview) -> Vector:
    """A read-only view of little-endian float32 bytes; length must be a multiple of four."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
