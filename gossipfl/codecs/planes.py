"""The entropy stage: bytes of equal place side by side, and the last plane deflated.

Weights are noise but for their size: only the byte with the sign and the exponent, or int8's one
byte, has less than eight bits in it. No string occurs twice, so deflate's Huffman code alone finds
all there is to find, in a fifth of the time (docs/decisions/0003-codecs.md has the figures).
"""

from __future__ import annotations

import zlib

import numpy as np

from gossipfl.codecs.values import Elements
from gossipfl.errors import Fault, PeerError

LEVEL, WINDOW_BITS, MEMORY = 1, 15, 9  # zlib's: level and window matter little to a Huffman code


def squeeze(elements: Elements) -> bytes:
    """The planes, lowest first; the last one deflated if that makes it smaller."""
    planes = elements.view(np.uint8).reshape(len(elements), elements.itemsize)
    last = planes[:, -1].tobytes()
    packed = deflate(last)
    return planes[:, :-1].T.tobytes() + (packed if len(packed) < len(last) else last)


def deflate(plane: bytes) -> bytes:
    """A zlib stream without a search for repeated strings."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW_BITS, MEMORY, zlib.Z_HUFFMAN_ONLY)
    return packer.compress(plane) + packer.flush()


def expand(data: memoryview, dtype: str, slots: int) -> Elements:
    """`slots` elements. Never holds more than they need, whatever `data` claims. PeerError."""
    width = np.dtype(dtype).itemsize
    plain = (width - 1) * slots
    last = data[plain:]
    if len(last) != slots:
        last = memoryview(_inflate(last, slots))
    if width == 1:
        return np.frombuffer(last, dtype)
    joined = np.empty((slots, width), np.uint8)
    joined[:, :-1] = np.frombuffer(data[:plain], np.uint8).reshape(width - 1, slots).T
    joined[:, -1] = np.frombuffer(last, np.uint8)
    return joined.reshape(-1).view(dtype)


def _inflate(data: memoryview, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise PeerError(Fault.MALFORMED, f"a plane does not inflate: {error}") from error
    if len(found) != size or not stream.eof or stream.unused_data:
        raise PeerError(Fault.MALFORMED, f"a plane does not inflate to {size} bytes")
    return found
