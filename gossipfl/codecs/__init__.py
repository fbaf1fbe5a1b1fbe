"""How a model becomes update objects: f32, bf16, int8, in parts, deflated; chosen by policy.

The exact length follows from (lineage, codec, count), so a receiver knows it before it allocates;
with zlib it is a bound. What is published is `decode(encode(vector))`: everyone, the publisher
included, uses what the bytes say. Format: docs/reference/protocol.md.
"""

from gossipfl.codecs.assembly import Assembly
from gossipfl.codecs.names import Codec, CodecError, parse, problem
from gossipfl.codecs.publication import Publication, publish
from gossipfl.codecs.update import (
    decode_update,
    encode_object,
    named_parts,
    require_size,
    update_bytes,
)
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector

__all__ = [
    "Assembly",
    "Codec",
    "CodecError",
    "Publication",
    "decode_update",
    "encode_update",
    "named_parts",
    "parse",
    "problem",
    "publish",
    "require_size",
    "update_bytes",
]


def encode_update(lineage: Lineage, codec: str, vector: Vector, *, seed: int = 0) -> bytes:
    """The update object of a codec that is not partial. Raises CodecError (a ValueError)."""
    return encode_object(lineage, parse(codec), vector, seed)
