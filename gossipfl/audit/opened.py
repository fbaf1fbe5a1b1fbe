"""An export as a `LogReader`: the verbs that read a hub's log read its export just as well.

Nothing is verified here: `verification` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gossipfl.audit import exports
from gossipfl.audit.archive import BLOCK
from gossipfl.audit.entries import Payload
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import BUNDLE, WIDTH, Tile, tile_at, unpack_bundle
from gossipfl.audit.tree import HASH_BYTES

FILES_MAX = 10_000_000  # 800 million entries


class Seekable(Protocol):
    """An open binary file."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, place: int, /) -> object: ...


class ExportReader:
    """Reads the table of files at once, and each file when it is asked for."""

    def __init__(self, file: Seekable) -> None:
        """Raises AuditRefused if it is no export."""
        self._file = file
        self._places = _table(file)
        self.about = exports.parse_about(self._data(exports.ABOUT))

    async def newest(self) -> int:
        return self.about.checkpoints

    async def checkpoint(self, number: int) -> bytes:
        if not 1 <= number <= self.about.checkpoints:
            raise AuditRefused(f"there is no checkpoint {number}")
        tile = tile_at(BUNDLE, (number - 1) // WIDTH, self.about.checkpoints)
        notes = unpack_bundle(self._data(exports.place_name("checkpoints", tile)), tile.width)
        return notes[(number - 1) % WIDTH]

    async def tile(self, tile: Tile) -> bytes:
        held = tile_at(tile.level, tile.index, self.about.entries)
        data = self._data(held.path)[: tile.width * HASH_BYTES]
        if len(data) != tile.width * HASH_BYTES:
            raise AuditRefused(f"there is no {tile.path}")
        return data

    async def entries(self, first: int, end: int) -> Sequence[bytes]:
        found: list[bytes] = []
        for tile in self._bundles(first, end):
            found += unpack_bundle(self._data(tile.path), tile.width)
        return found[first % WIDTH :][: end - first]

    async def payloads(self, first: int, end: int) -> Sequence[Payload | None]:
        if not self.about.payloads:
            return [None] * (end - first)
        found: list[Payload | None] = []
        for tile in self._bundles(first, end):
            data = self._data(exports.place_name("payloads", tile))
            found += exports.unpack_payloads(data, tile.width)
        return found[first % WIDTH :][: end - first]

    async def salts(self) -> Mapping[bytes, bytes]:
        if not self.about.payloads:
            return {}
        return exports.unpack_salts(self._data(exports.SALTS))

    def _bundles(self, first: int, end: int) -> list[Tile]:
        size = self.about.entries
        if not 0 <= first <= end <= size or end - first > WIDTH:
            raise AuditRefused(f"there are no entries {first} to {end}")
        return [tile_at(BUNDLE, n, size) for n in range(first // WIDTH, -(-end // WIDTH))]

    def _data(self, name: str) -> bytes:
        if name not in self._places:
            raise AuditRefused(f"the export has no {name}")
        place, size = self._places[name]
        self._file.seek(place)
        data = self._file.read(size)
        if len(data) != size:
            raise AuditRefused(f"the export ends within {name}")
        return data


def _table(file: Seekable) -> dict[str, tuple[int, int]]:
    """Name -> (place, size) of every file of the tar."""
    places: dict[str, tuple[int, int]] = {}
    place = 0
    while len(places) < FILES_MAX:
        file.seek(place)
        block = file.read(BLOCK)
        if len(block) < BLOCK or not any(block):
            break
        name = block[:100].rstrip(b"\0").decode("ascii", "replace")
        try:
            size = int(block[124:135], 8)
        except ValueError as error:
            raise AuditRefused("not a tar file") from error
        places[name] = (place + BLOCK, size)
        place += BLOCK + size + -size % BLOCK
    return places
