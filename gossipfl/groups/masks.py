"""Masks: ChaCha20 streams as uint32 words, added and taken away mod 2^32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gossipfl.groups.grid import Words

BLOCK = 16_384  # words at a time: temporaries stay in a second-level cache, as privacy.stream
_ZEROS = bytes(4 * BLOCK)


@dataclass(frozen=True, slots=True)
class Mask:
    """One stream: its 32-byte key, and whether it is added or taken away. Secret: never shown."""

    key: bytes
    added: bool

    def __repr__(self) -> str:
        return "Mask(...)"

    def undone(self) -> Mask:
        return Mask(self.key, not self.added)


def apply(words: Words, masks: Sequence[Mask]) -> Words:
    """A copy of uint32[d] with all masks on it. A key serves one vector: the nonce is zero."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    out = words.copy()
    ciphers = [Cipher(algorithms.ChaCha20(m.key, bytes(16)), None).encryptor() for m in masks]
    buffer = bytearray(4 * BLOCK)
    view = np.frombuffer(buffer, dtype="<u4")
    zeros = memoryview(_ZEROS)
    for at in range(0, len(out), BLOCK):
        part = out[at : at + BLOCK]
        for mask, cipher in zip(masks, ciphers, strict=True):
            cipher.update_into(zeros[: 4 * len(part)], buffer)
            if mask.added:
                part += view[: len(part)]
            else:
                part -= view[: len(part)]
    return out


def add_up(vectors: Sequence[Words]) -> Words:
    """The sum mod 2^32 of one or more vectors of equal length."""
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    return total


def uncover(vectors: Sequence[Words], masks: Sequence[Mask]) -> Words:
    """The sum of masked vectors with `masks` undone: what the group wanted to know."""
    return apply(add_up(vectors), [mask.undone() for mask in masks])
