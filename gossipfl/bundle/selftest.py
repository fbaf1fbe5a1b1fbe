"""The inputs of a bundle's self-test: the same bits on every machine and in every version.

numpy does not promise its generators' streams across versions, so the values come from SHAKE-256
(FIPS 202) of the seed and the tensor's name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.bundle.manifest import DType, Manifest, TensorSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one step: x f32 or i64 [B, ...], y likewise, w float32[B]."""

    x: Array
    y: Array
    w: npt.NDArray[np.float32]


def selftest_batch(manifest: Manifest, seed: int | None = None) -> Batch:
    """Uniform inputs in [-1, 1), uniform tokens and labels; the last weight is 0 (padding)."""
    seed = manifest.selftest.seed if seed is None else seed
    batch = manifest.batch
    w = np.ones(batch, np.float32)
    if batch > 1:
        w[-1] = 0.0
    return Batch(
        x=_tensor(f"{seed} x", batch, manifest.input, manifest.vocabulary or 1),
        y=_tensor(f"{seed} y", batch, manifest.target, manifest.classes),
        w=w,
    )


def _tensor(label: str, batch: int, spec: TensorSpec, below: int) -> Array:
    shape = (batch, *spec.shape)
    raw = hashlib.shake_256(label.encode()).digest(4 * batch * spec.elements)
    words = np.frombuffer(raw, "<u4").reshape(shape)
    if spec.dtype is DType.I64:
        return (words % below).astype(np.int64)
    return ((words >> 8).astype(np.float32) / np.float32(1 << 23)) - np.float32(1.0)
