"""Which updates a merged vector may be: by encoding it (f32), or by decoding all that arrived."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from gossipfl.codecs import decode_update, encode_update, named_parts
from gossipfl.errors import PeerError
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Vector, to_bytes
from gossipfl.wire import unpack
from sim.recall import Recall
from sim.trace import Known, is_fixed

KEPT_MAX = 4_096
"""Objects and names held: more than a hundred devices publish until an update is stale."""
HEADER_BYTES = 8


class Rows:
    """Every update that came to anybody in one history. One of f32 need not be kept: it is what its
    row encodes to. Any other is decoded once, when a merge asks and its parts are here."""

    def __init__(self) -> None:
        self._read = Recall(entries_max=KEPT_MAX)
        self._objects: OrderedDict[bytes, tuple[str, int, bytes]] = OrderedDict()
        self._undecoded: dict[bytes, None] = {}
        self._f32: dict[Lineage, Known] = {}
        self._names: OrderedDict[tuple[Lineage, bytes], list[bytes]] = OrderedDict()

    def saw(self, data: bytes | None) -> None:
        """An object arrived, or an update rode along."""
        if data is None or data[:4] != b"GFU1":
            return
        size = int.from_bytes(data[4:HEADER_BYTES], "little")
        try:
            _, codec, count = self._read(unpack, data[HEADER_BYTES : HEADER_BYTES + size], 1024)
        except (PeerError, ValueError, TypeError):
            return  # hostile bytes: whatever is wrong, nobody may merge it
        if codec == "f32":
            return
        name = digest(data)
        if name in self._objects:
            return
        self._objects[name] = (codec, count, data)
        self._undecoded[name] = None
        while len(self._objects) > KEPT_MAX:
            self._undecoded.pop(self._objects.popitem(last=False)[0], None)

    def names(self, row: Vector, lineages: Sequence[Lineage]) -> Iterator[tuple[Lineage, bytes]]:
        """(lineage, digest) of the updates that decode to this row."""
        for lineage in lineages:
            yield lineage, self._as_f32(lineage, row)
        if not self._objects:
            return
        self._decode(lineages)
        key = digest(to_bytes(row))
        for lineage in lineages:
            for name in self._names.get((lineage, key), ()):
                yield lineage, name

    def _as_f32(self, lineage: Lineage, row: Vector) -> bytes:
        """The digest of the f32 update that has this row. Of a row that nobody can change, once."""

        def update() -> bytes:
            return encode_update(lineage, "f32", row)

        if not is_fixed(row):
            return digest(update())
        return self._f32.setdefault(lineage, Known()).digest(row, update)

    def _decode(self, lineages: Sequence[Lineage]) -> None:
        for name in list(self._undecoded):
            codec, count, data = self._objects[name]
            for lineage in lineages:
                try:
                    needs = named_parts(data, lineage, codec, count)
                    parts = {n: self._objects[n][2] for n in needs}
                    vector = decode_update(data, lineage, codec, count, parts)
                except (PeerError, KeyError):
                    continue  # of another lineage, not whole yet, or hostile
                row = (lineage, digest(to_bytes(vector)))
                self._names.setdefault(row, []).append(name)
                del self._undecoded[name]
                break
        while len(self._names) > KEPT_MAX:
            self._names.popitem(last=False)
