"""Update objects: header, for partial ones the digests of the other parts, scales, values.

    "GFU1" length:u32 msgpack[lineage, codec, count] [part:u8 digests] [scales:f32...] values

A partial update carries the coordinates part, part + K, part + 2K, ... of K parts and names the
newest update of its publisher for each other part. So every update stands for one full vector that
everybody decodes alike, and a receiver fetches only the parts that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gossipfl.codecs.names import DIGEST_BYTES, Codec, CodecError, parse
from gossipfl.codecs.planes import expand, squeeze
from gossipfl.codecs.values import DTYPES, decode_values, encode_values
from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector, require_finite
from gossipfl.wire import encode, pack

NOBODY = bytes(DIGEST_BYTES)
"""In place of a digest: this object is no update by itself, only a part that others name."""


@lru_cache(maxsize=16)  # of the few lineages that are in use; asked for with each update
def header(lineage: Lineage, codec: str, count: int) -> bytes:
    body = pack([encode(lineage), codec, count])
    return b"GFU1" + len(body).to_bytes(4, "little") + body


def parse_theirs(codec: str) -> Codec:
    """A codec that a peer named. Raises PeerError MALFORMED."""
    try:
        return parse(codec)
    except CodecError as error:
        raise PeerError(Fault.MALFORMED, str(error)) from None


@lru_cache(maxsize=16)  # as above
def update_bytes(lineage: Lineage, codec: str, count: int) -> int:
    """The one length that an update of this lineage and codec can have; with zlib the greatest."""
    return len(header(lineage, codec, count)) + parse_theirs(codec).body_bytes(count)


def require_size(size: int, lineage: Lineage, codec: str, count: int) -> None:
    """Is this a length that such an update can have? Raises PeerError, before anything is read."""
    greatest = update_bytes(lineage, codec, count)
    if size == greatest:
        return
    parsed = parse_theirs(codec)
    least = greatest - parsed.slots(count) + 1 if parsed.zlib and count else greatest
    if not least <= size <= greatest:
        what = f"{greatest} bytes" if least == greatest else f"{least} to {greatest} bytes"
        raise PeerError(Fault.WRONG_LENGTH, f"an update of {size} bytes, not {what}")


def encode_object(
    lineage: Lineage,
    codec: Codec,
    vector: Vector,
    seed: int = 0,
    part: int = 0,
    others: Sequence[bytes] = (),
) -> bytes:
    """One object of float32[count] `vector`; `others` are the digests of the other parts, in order.

    The same arguments give the same bytes. Raises CodecError for values that it cannot hold.
    """
    names = bytes((part, *b"".join(others))) if codec.parts > 1 else b""
    if len(names) != codec.names_bytes:
        raise CodecError(f"{codec.name} names {codec.parts - 1} other parts, not {len(others)}")
    chosen = np.zeros(codec.slots(len(vector)), np.float32) if codec.parts > 1 else vector
    if codec.parts > 1:
        cut = vector[part :: codec.parts]
        chosen[: len(cut)] = cut
    scales, elements = encode_values(codec.values, chosen, seed, part)
    body = squeeze(elements) if codec.zlib else elements.tobytes()
    return b"".join((header(lineage, codec.name, len(vector)), names, scales, body))


@dataclass(frozen=True, slots=True)
class Opened:
    """An update object whose length, lineage and form are right; the values are not read yet."""

    codec: Codec
    count: int
    part: int
    others: tuple[tuple[int, bytes], ...]  # (part, digest) of the other parts
    scales: memoryview
    body: memoryview

    def values(self) -> Vector:
        """float32[slots], finite. Raises PeerError."""
        slots, dtype = self.codec.slots(self.count), DTYPES[self.codec.values]
        if self.codec.zlib:
            elements = expand(self.body, dtype, slots)
        else:
            elements = np.frombuffer(self.body, dtype)
        vector = _in_place(decode_values(self.codec.values, self.scales, elements))
        require_finite(vector)
        return vector

    def write(self, out: Vector) -> None:
        """Its coordinates into float32[count] `out`; what fills up the last part is dropped."""
        place = out[self.part :: self.codec.parts]
        place[:] = self.values()[: len(place)]


def _in_place(vector: Vector) -> Vector:
    """Where the processor reads it fast. Behind a header it may lie at any byte; rules and scores
    read each model many times, so one copy here is less than theirs."""
    if vector.flags.aligned:
        return vector
    vector = vector.copy()
    vector.flags.writeable = False
    return vector


def open_object(data: bytes, lineage: Lineage, codec: str, count: int) -> Opened:
    """Checks length, lineage and the part's number. Raises PeerError."""
    require_size(len(data), lineage, codec, count)
    parsed, expected = parse_theirs(codec), header(lineage, codec, count)
    if data[: len(expected)] != expected:
        raise PeerError(Fault.OTHER_LINEAGE, "the update's header names another lineage")
    names = len(expected)
    scales = names + parsed.names_bytes
    body = scales + parsed.scale_bytes(count)
    part, others = 0, []
    if parsed.parts > 1:
        part = data[names]
        if part >= parsed.parts:
            raise PeerError(Fault.MALFORMED, f"part {part} of {parsed.parts}")
        rest = [index for index in range(parsed.parts) if index != part]
        for at, index in zip(range(names + 1, scales, DIGEST_BYTES), rest, strict=True):
            others.append((index, data[at : at + DIGEST_BYTES]))
    view = memoryview(data)
    return Opened(parsed, count, part, tuple(others), view[scales:body], view[body:])


def named_parts(data: bytes, lineage: Lineage, codec: str, count: int) -> tuple[bytes, ...]:
    """Digests of the objects without which this update cannot be decoded. Raises PeerError."""
    names = tuple(name for _, name in open_object(data, lineage, codec, count).others)
    if NOBODY in names:
        raise PeerError(Fault.MALFORMED, "an update that leaves parts of the vector open")
    return names


def decode_update(
    data: bytes,
    lineage: Lineage,
    codec: str,
    count: int,
    parts: Mapping[bytes, bytes] | None = None,
) -> Vector:
    """float32[count]: length, lineage, form and finiteness are checked. Raises PeerError.

    `parts` holds, for a partial update, the objects that `named_parts` names, by digest; it is the
    caller who has compared them with their digests. Raises KeyError for one that is not there.
    """
    opened = open_object(data, lineage, codec, count)
    if opened.codec.parts == 1:
        return opened.values()
    out = np.empty(count, np.float32)
    opened.write(out)
    held = parts or {}
    for index, name in opened.others:
        part = open_object(held[name], lineage, codec, count)
        if part.part != index:
            raise PeerError(Fault.MALFORMED, f"part {part.part} where part {index} should be")
        part.write(out)
    return out
