"""The publisher's side: from a trained model to the objects that go out, and what did not go out.

A first partial publication, and one after a restart, writes all parts; each later one the part
whose turn it is. What training changed in the other coordinates is no error to be forgotten: it is
carried into the next training (`unsent`) until its part is published. It never leaves the device
before, and no merge sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gossipfl.codecs.names import Codec, parse
from gossipfl.codecs.update import NOBODY, decode_update, encode_object, open_object
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Cleared, Vector


@dataclass(frozen=True, slots=True)
class Publication:
    """`data` is the update that the head names; `beside` are objects that it names and that are
    new too; `vector` is what everyone decodes."""

    lineage: Lineage
    codec: Codec
    data: bytes
    beside: tuple[bytes, ...]
    vector: Vector
    part: int
    names: tuple[bytes, ...]  # newest object of each part

    @property
    def is_whole(self) -> bool:
        """Did every coordinate go out?"""
        return self.codec.parts == len(self.beside) + 1

    def unsent(self, change: Vector) -> Vector | None:
        """`change` without the coordinates that went out; None if that leaves nothing."""
        if self.is_whole:
            return None
        left = change.copy()
        left[self.part :: self.codec.parts] = 0.0
        return left


def publish(
    lineage: Lineage,
    codec: str,
    vector: Cleared,
    seed: int,
    before: Publication | None = None,
    first: int = 0,
) -> Publication:
    """Encode float32[count] `vector`. `before` is the last publication, if this one may build on
    it; `first` is any number that differs between devices, so that not all send the same part at
    once. Raises CodecError."""
    parsed = parse(codec)
    if parsed.parts == 1:
        data = encode_object(lineage, parsed, vector, seed)
        decoded = decode_update(data, lineage, codec, len(vector))
        return Publication(lineage, parsed, data, (), decoded, 0, ())
    if before is None or (before.lineage, before.codec) != (lineage, parsed):
        return _all_parts(lineage, parsed, vector, seed, first % parsed.parts)
    part = (before.part + 1) % parsed.parts
    others = before.names[:part] + before.names[part + 1 :]
    data = encode_object(lineage, parsed, vector, seed, part, others)
    decoded = np.array(before.vector)
    open_object(data, lineage, codec, len(vector)).write(decoded)
    names = (*before.names[:part], digest(data), *before.names[part + 1 :])
    return Publication(lineage, parsed, data, (), decoded, part, names)


def _all_parts(
    lineage: Lineage, codec: Codec, vector: Cleared, seed: int, first: int
) -> Publication:
    """Every part, the one of `first` last: it is the update, and the next one's turn comes next."""
    alone = (NOBODY,) * (codec.parts - 1)
    beside, names = [], [NOBODY] * codec.parts
    for step in range(1, codec.parts):  # in the order in which their turns will come
        part = (first + step) % codec.parts
        beside.append(encode_object(lineage, codec, vector, seed, part, alone))
        names[part] = digest(beside[-1])
    others = [name for index, name in enumerate(names) if index != first]
    data = encode_object(lineage, codec, vector, seed, first, others)
    names[first] = digest(data)
    held = {digest(part): part for part in beside}
    decoded = decode_update(data, lineage, codec.name, len(vector), held)
    return Publication(lineage, codec, data, tuple(beside), decoded, first, tuple(names))
