"""Secret chance: a ChaCha20 stream, and Gaussian noise that has been rounded to integers.

The key comes from outside, 32 bytes of the operating system's generator for each use: there is no
seed here, and one stream never gives the same bytes twice. Noise is rint(N(0, scale^2)) by Box and
Muller (1958) on 64-bit words. Added to an integer vector it is the plain Gaussian mechanism,
rounded afterwards, so the claim is that of the Gaussian; and since every output is an integer, no
low-order bits tell the input (Mironov, CCS 2012, "On significance of the least significant bits").
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

KEY_BYTES = 32
RADIUS_MAX = math.sqrt(2.0 * 65.0 * math.log(2.0))
"""No sample is farther out than this many deviations (9.49): the smallest uniform is 2^-65. A true
Gaussian is, with probability 2.3e-21 a coordinate."""
REACH = 9.0
"""Up to this many deviations every integer can come out, in either direction."""
SCALE_MAX = 2.0**48  # beyond it, samples would be too coarse in float64
BLOCK = 16_384  # values at a time: temporaries stay in a second-level cache of 1 MiB

Whole = npt.NDArray[np.float64]
"""Whole numbers below 2^53 in float64: sums of them are exact."""
_Words = npt.NDArray[np.uint64]


class Stream:
    """One key's stream. Everything drawn is consumed; a second stream needs a second key."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 fresh bytes of the operating system. Raises ValueError on another length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes, {KEY_BYTES} are needed")
        self._cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        self._zeros = bytes(8 * BLOCK)

    def words(self, count: int) -> _Words:
        """uint64[count], uniform."""
        if 8 * count <= len(self._zeros):
            data = self._cipher.update(memoryview(self._zeros)[: 8 * count])
        else:
            data = self._cipher.update(bytes(8 * count))
        return np.frombuffer(data, dtype="<u8")

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """float64[count] in [0, 1): multiples of 2^-53."""
        scaled = (self.words(count) >> np.uint64(11)).astype(np.float64)
        scaled *= 2.0**-53
        return scaled

    def uniform_coarse(self, count: int) -> npt.NDArray[np.float64]:
        """float64[count] in [0, 1): multiples of 2^-32, half the bytes of `uniform`."""
        halves = self.words((count + 1) // 2).view("<u4")[:count].astype(np.float64)
        halves *= 2.0**-32
        return halves

    def noise(self, count: int, scale: float) -> Whole:
        """float64[count], whole numbers: rint(N(0, scale^2)), independent.

        Raises ValueError on a useless scale.
        """
        if not 0.0 < scale <= SCALE_MAX:
            raise ValueError(f"noise of scale {scale} on an integer grid")
        out = np.empty(count, np.float64)
        for at in range(0, count, BLOCK):
            block = out[at : at + BLOCK]
            half = (len(block) + 1) // 2
            words = self.words(2 * half)
            cosines, sines = box_muller(words[:half], words[half:], scale)
            block[:half] = cosines
            block[half:] = sines[: len(block) - half]
        return out


def box_muller(radii: _Words, angles: _Words, scale: float) -> tuple[Whole, Whole]:
    """Two whole numbers for each pair of uniform words."""
    radius = radii.astype(np.float64)
    radius += 0.5  # never zero
    radius *= 2.0**-64
    np.log(radius, out=radius)
    radius *= -2.0 * scale * scale
    np.sqrt(radius, out=radius)
    angle = angles.astype(np.float64)
    angle *= 2.0 * math.pi * 2.0**-64
    cosine = np.cos(angle)
    sine = np.sin(angle, out=angle)
    cosine *= radius
    sine *= radius
    return np.rint(cosine, out=cosine), np.rint(sine, out=sine)
