"""Shamir's secret sharing of 32-byte secrets (Shamir 1979), by PyCryptodome over GF(2^128).

A 32-byte secret is two 16-byte secrets. PyCryptodome's own `split` draws from the operating system,
so a simulated history could not be played again: here the random points come in as bytes, and
PyCryptodome interpolates. It finds the polynomial's value at 0; in this field x + x = 0, so with
every index moved by x (exclusive or) the same call gives the value at x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec

from gossipfl.errors import LocalError

SECRET_BYTES = 32
HALF_BYTES = 16
PLACES_MAX = 16  # design: groups of 4 to 16

Entropy = Callable[[int], bytes]


def is_installed() -> bool:
    """Is PyCryptodome here? Without it a device takes part in no sum."""
    return find_spec("Crypto") is not None


def split(secret: bytes, threshold: int, places: int, entropy: Entropy) -> tuple[bytes, ...]:
    """A 32-byte share for each place; any `threshold` of them give the secret, fewer say nothing.

    `entropy(count)` gives secret uniform bytes. Raises ValueError on impossible sizes.
    """
    if len(secret) != SECRET_BYTES or not 2 <= threshold <= places <= PLACES_MAX:
        raise ValueError(f"{len(secret)} bytes, {threshold} of {places} shares")
    halves = []
    for at in (0, HALF_BYTES):
        # A polynomial of degree threshold - 1 is fixed by its values at 0 (the secret) and at
        # 1 .. threshold - 1; those uniform, it is a uniform one with the secret at 0.
        points = {0: secret[at : at + HALF_BYTES]}
        points |= {index: entropy(HALF_BYTES) for index in range(1, threshold)}
        rest = range(threshold, places + 1)
        halves.append(points | {index: _value_at(points, index) for index in rest})
    return tuple(halves[0][index] + halves[1][index] for index in range(1, places + 1))


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from exactly `threshold` shares by place (from 0). Wrong shares give a wrong
    secret, not an error: the caller checks it. Raises ValueError on another number or length."""
    if len(shares) != threshold or any(len(share) != SECRET_BYTES for share in shares.values()):
        raise ValueError(f"{len(shares)} shares of 32 bytes, exactly {threshold} are needed")
    halves = [
        _value_at({place + 1: share[at : at + HALF_BYTES] for place, share in shares.items()}, 0)
        for at in (0, HALF_BYTES)
    ]
    return halves[0] + halves[1]


def _value_at(points: Mapping[int, bytes], x: int) -> bytes:
    try:
        from Crypto.Protocol.SecretSharing import Shamir
    except ImportError as error:
        raise LocalError("group sums need PyCryptodome: pip install 'gossipfl[groups]'") from error
    return bytes(Shamir.combine([(index ^ x, value) for index, value in points.items()]))
