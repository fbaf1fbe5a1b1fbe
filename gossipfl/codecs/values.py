"""float32 values as bytes and back: f32, bf16, and int8 by blocks with stochastic rounding.

Decoding is exact IEEE arithmetic, so every machine gets the same bits. Rounding noise comes from
Philox (Salmon et al. 2011), a counter-based generator keyed by a seed that the node gives: the same
seed gives the same bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.codecs.names import BLOCK, CodecError, Values
from gossipfl.errors import Fault, PeerError
from gossipfl.parameters import Vector

Elements = npt.NDArray[Any]
"""little-endian float32, uint16 (bf16) or int8, one per value"""
DTYPES: dict[Values, str] = {Values.F32: "<f4", Values.BF16: "<u2", Values.INT8: "i1"}

VALUE_MAX = 1e38
"""Largest value that bf16 and int8 take: below it neither rounding nor decoding overflows."""
SCALE_MIN = float(np.finfo(np.float32).tiny)
"""A block whose scale would be smaller is written as zeros: its inverse must stay finite."""
LEVELS = 127 * (1 - 2**-20)
"""A hair below 127, so that the largest value of a block never rounds to 128."""
CHUNK = 128 * BLOCK
"""Values encoded at a time: a chunk and its noise stay in the second-level cache."""


def encode_values(values: Values, vector: Vector, seed: int, part: int) -> tuple[bytes, Elements]:
    """(scales, elements) of float32[slots]. Raises CodecError for what they cannot hold."""
    match values:
        case Values.F32:
            return b"", vector.astype("<f4", copy=False)
        case Values.BF16:
            _require_range(vector)
            return b"", _to_bf16(vector)
        case Values.INT8:
            _require_range(vector)
            scales, steps = _to_int8(vector, seed, part)
            return scales.tobytes(), steps


def decode_values(values: Values, scales: memoryview, elements: Elements) -> Vector:
    """float32[slots]. Raises PeerError MALFORMED for what no encoder writes."""
    match values:
        case Values.F32:
            return elements.astype(np.float32, copy=False)
        case Values.BF16:
            return _from_bf16(elements)
        case Values.INT8:
            return _from_int8(np.frombuffer(scales, "<f4"), elements)


def _require_range(vector: Vector) -> None:
    if len(vector) and not (vector.max() <= VALUE_MAX and vector.min() >= -VALUE_MAX):
        raise CodecError(f"a value is not a number or beyond {VALUE_MAX:g}: no codec but f32")


def _to_bf16(vector: Vector) -> npt.NDArray[Any]:
    """The upper halves, rounded to nearest, ties to even: half a unit in the 8th binary digit."""
    bits = vector.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype("<u2")


def _from_bf16(halves: Elements) -> Vector:
    bits = halves.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _to_int8(vector: Vector, seed: int, part: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int8]]:
    """A scale per block, and values rounded up or down at random so that the mean is the value.

    The noise has 16 bits: the mean is true to 2^-17 of a step.
    """
    count = len(vector)
    scales = np.empty(-(-count // BLOCK), "<f4")
    values = np.empty(count, np.int8)
    generator = np.random.Philox(key=seed & (2**64 - 1) | part << 64)
    for start in range(0, count, CHUNK):
        chunk = vector[start : start + CHUNK]
        size = len(chunk)
        noise = generator.random_raw(-(-size // 4)).astype("<u8", copy=False).view("<u2")[:size]
        work = np.zeros((-(-size // BLOCK), BLOCK), np.float32)
        flat = work.reshape(-1)[:size]
        flat[:] = chunk
        scale = np.maximum(work.max(axis=1), -work.min(axis=1))
        scale *= np.float32(1 / LEVELS)
        scale[scale < SCALE_MIN] = 0.0
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0)
        work *= inverse[:, None]
        dither = noise.astype(np.float32)
        dither += np.float32(0.5)
        dither *= np.float32(2**-16)
        flat += dither
        np.floor(flat, out=flat)
        values[start : start + size] = flat
        scales[start // BLOCK : start // BLOCK + len(scale)] = scale
    return scales, values


def _from_int8(scales: npt.NDArray[Any], values: npt.NDArray[np.int8]) -> Vector:
    if not (scales >= 0.0).all():
        raise PeerError(Fault.MALFORMED, "a scale of an int8 update is negative or not a number")
    if len(values) and values.min() == -128:
        raise PeerError(Fault.MALFORMED, "an int8 update holds -128")
    out = values.astype(np.float32)
    whole = len(out) // BLOCK * BLOCK
    with np.errstate(over="ignore", invalid="ignore"):  # hostile scales; finiteness is checked next
        out[:whole].reshape(-1, BLOCK)[:] *= scales[: whole // BLOCK, None]
        if whole < len(out):
            out[whole:] *= scales[-1]
    return out
