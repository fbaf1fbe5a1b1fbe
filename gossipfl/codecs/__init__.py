"""How a model becomes an update object: a msgpack header, then flat little-endian tensor data.

The exact length follows from (lineage, codec, count), so a receiver knows it before it allocates.
What is published is `decode(encode(vector))`: everyone, the publisher included, uses what the
bytes say. Codec registry: f32 now; more codecs are rows here.
"""

from __future__ import annotations

from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector, from_bytes, require_finite, to_bytes
from gossipfl.wire import encode, pack

CODECS: dict[str, int] = {"f32": 4}
"""name -> bytes per parameter"""


def _header(lineage: Lineage, codec: str, count: int) -> bytes:
    body = pack([encode(lineage), codec, count])
    return b"GFU1" + len(body).to_bytes(4, "little") + body


def update_bytes(lineage: Lineage, codec: str, count: int) -> int:
    """The one length that an update of this lineage and codec can have."""
    if codec not in CODECS:
        raise PeerError(Fault.MALFORMED, f"codec {codec[:20]!r} is not known here")
    return len(_header(lineage, codec, count)) + CODECS[codec] * count


def encode_update(lineage: Lineage, codec: str, vector: Vector) -> bytes:
    """The update object of float32[count] `vector`."""
    if codec not in CODECS:
        raise ValueError(f"codec {codec!r} is not known here")
    return _header(lineage, codec, len(vector)) + to_bytes(vector)


def decode_update(data: bytes, lineage: Lineage, codec: str, count: int) -> Vector:
    """float32[count]; checks length, lineage and finiteness. Raises PeerError."""
    expected = update_bytes(lineage, codec, count)
    if len(data) != expected:
        raise PeerError(Fault.WRONG_LENGTH, f"update of {len(data)} bytes, not {expected}")
    header = _header(lineage, codec, count)
    if data[: len(header)] != header:
        raise PeerError(Fault.OTHER_LINEAGE, "the update's header names another lineage")
    vector = from_bytes(memoryview(data)[len(header) :])
    require_finite(vector)
    return vector
