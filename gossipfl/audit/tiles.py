"""C2SP tlog-tiles (c2sp.org/tlog-tiles): how a tree lies in static files.

A hash tile holds 256 neighbouring hashes of one tile level: the leaves at level 0, the roots of
256**level leaves above. An entry bundle holds 256 entries, each after two bytes of length. Whatever
is complete never changes; the rightmost ones are partial and are named with their width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import HASH_BYTES, SIZE_MAX, CompactRange, Node, node_hash

LEVEL_BITS = 8
WIDTH = 1 << LEVEL_BITS
TILE_BYTES = WIDTH * HASH_BYTES
LEVEL_MAX = 7  # 2**63 leaves have 8 tile levels
ENTRY_BYTES_MAX = 2**16 - 1  # two bytes of length

_PATH = re.compile(
    r"tile/(entries|[0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Name of a hash tile, or of the entry bundle (`level` -1) over the same leaves."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (-1 <= self.level <= LEVEL_MAX and 0 <= self.index <= SIZE_MAX >> LEVEL_BITS):
            raise AuditRefused(f"there is no tile {self.index} at level {self.level}")
        if not 1 <= self.width <= WIDTH:
            raise AuditRefused(f"a tile has 1 to 256 hashes, not {self.width}")

    @property
    def path(self) -> str:
        """`tile/0/x001/x234/067`, `tile/0/003.p/17`, `tile/entries/000`."""
        kind = "entries" if self.level < 0 else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{kind}/{number_path(self.index)}{partial}"

    @property
    def full(self) -> Tile:
        """The tile of this place once it is complete."""
        return Tile(self.level, self.index)


BUNDLE = -1
"""The `level` of entry bundles."""


def number_path(number: int) -> str:
    """1234067 -> x001/x234/067."""
    text = f"{number % 1000:03d}"
    while number := number // 1000:
        text = f"x{number % 1000:03d}/{text}"
    return text


def parse_path(path: str) -> Tile:
    """The tile of a path. Raises AuditRefused unless the path is its only spelling."""
    match = _PATH.fullmatch(path) if len(path) <= 64 else None
    if match is None:
        raise AuditRefused(f"not the path of a tile: {path[:64]!r}")
    kind, number, width = match.groups()
    index = int(number.replace("x", "").replace("/", ""))
    tile = Tile(BUNDLE if kind == "entries" else int(kind), index, int(width) if width else WIDTH)
    if tile.path != path:
        raise AuditRefused(f"not the shortest path of a tile: {path!r}")
    return tile


def tiles_of(size: int, level: int) -> Iterator[Tile]:
    """The tiles of one level (entry bundles: BUNDLE) of a tree of `size` leaves."""
    hashes = size >> (LEVEL_BITS * max(level, 0))
    for index in range(hashes // WIDTH):
        yield Tile(level, index)
    if hashes % WIDTH:
        yield Tile(level, hashes // WIDTH, hashes % WIDTH)


def levels_of(size: int) -> int:
    """How many tile levels a tree of `size` leaves has."""
    levels = 0
    while size >> (LEVEL_BITS * levels):
        levels += 1
    return levels


def tile_at(level: int, index: int, size: int) -> Tile:
    """The tile of that place in a tree of `size` leaves, with its width there."""
    width = min(WIDTH, (size >> (LEVEL_BITS * max(level, 0))) - index * WIDTH)
    if index < 0 or width <= 0:
        raise AuditRefused(f"a tree of {size} leaves has no tile {index} at level {level}")
    return Tile(level, index, width)


def tile_root(hashes: bytes) -> bytes:
    """The root over a complete tile's 256 hashes, or over any power of two of hashes."""
    row = [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tiled tree: the hashes of the incomplete tile of each level.

    All that a writer must hold in order to append, and to know the root. `partial[level]` has
    (size >> 8 * level) % 256 hashes.
    """

    size: int = 0
    partial: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        want = [(self.size >> LEVEL_BITS * n) % WIDTH for n in range(levels_of(self.size))]
        if [len(hashes) for hashes in self.partial] != [width * HASH_BYTES for width in want]:
            raise AuditRefused(f"these are not the partial tiles of a tree of {self.size}")

    @classmethod
    def tiles(cls, size: int) -> list[Tile]:
        """The tiles to read for `Edge.load`: at most 8, all partial."""
        widths = [(size >> LEVEL_BITS * n) % WIDTH for n in range(levels_of(size))]
        return [
            Tile(level, size >> LEVEL_BITS * (level + 1), width)
            for level, width in enumerate(widths)
            if width
        ]

    @classmethod
    def load(cls, size: int, data: Mapping[Tile, bytes]) -> Edge:
        """The edge from the bytes of `Edge.tiles(size)`, of which prefixes count."""
        partial = [b""] * levels_of(size)
        for tile in cls.tiles(size):
            if tile not in data:
                raise AuditRefused(f"{tile.path} is missing")
            partial[tile.level] = data[tile][: tile.width * HASH_BYTES]
        return cls(size, tuple(partial))

    def extended(self, leaves: Sequence[bytes]) -> Growth:
        """The tree with these leaf hashes appended, and every tile that is new or has grown."""
        if any(len(leaf) != HASH_BYTES for leaf in leaves):
            raise AuditRefused("a hash has 32 bytes")
        tiles: dict[Tile, bytes] = {}
        partial = list(self.partial)
        size = self.size + len(leaves)
        level, incoming = 0, b"".join(leaves)
        while incoming:
            if level == len(partial):
                partial.append(b"")
            index = (self.size >> LEVEL_BITS * level) // WIDTH
            row = partial[level] + incoming
            roots = []
            while len(row) >= TILE_BYTES:
                tiles[Tile(level, index)] = row[:TILE_BYTES]
                roots.append(tile_root(row[:TILE_BYTES]))
                row, index = row[TILE_BYTES:], index + 1
            if row:
                tiles[Tile(level, index, len(row) // HASH_BYTES)] = row
            partial[level] = row
            level, incoming = level + 1, b"".join(roots)
        return Growth(Edge(size, tuple(partial)), tiles)

    def compact(self) -> CompactRange:
        """The same tree as a compact range."""
        peaks: list[bytes] = []
        for hashes in reversed(self.partial):
            width, first = len(hashes) // HASH_BYTES, 0
            for bit in reversed(range(LEVEL_BITS)):
                if width >> bit & 1:
                    end = first + (HASH_BYTES << bit)
                    peaks.append(tile_root(hashes[first:end]))
                    first = end
        return CompactRange(self.size, tuple(peaks))

    def root(self) -> bytes:
        return self.compact().root()


@dataclass(frozen=True, slots=True)
class Growth:
    """What an append made: the new edge, and the tiles to store (complete, or grown partial)."""

    edge: Edge
    tiles: Mapping[Tile, bytes]


def tiles_for(nodes: Iterable[Node], size: int) -> list[Tile]:
    """The tiles, in order, from which `TiledNodes` can tell these nodes of a tree of `size`."""
    return sorted({_tile_of(node, size) for node in nodes})


def _tile_of(node: Node, size: int) -> Tile:
    level = node.level // LEVEL_BITS
    first = node.index << (node.level % LEVEL_BITS)
    return tile_at(level, first // WIDTH, size)


@dataclass(frozen=True, slots=True)
class TiledNodes:
    """`tree.Nodes` from tiles at hand. `size` is that of the tree for which they were fetched."""

    size: int
    tiles: Mapping[Tile, bytes]

    def hash_of(self, node: Node) -> bytes:
        tile = _tile_of(node, self.size)
        data = self.tiles.get(tile)
        if data is None:
            raise AuditRefused(f"{tile.path} is missing")
        if len(data) != tile.width * HASH_BYTES:
            raise AuditRefused(f"{tile.path} has {len(data)} bytes")
        span = HASH_BYTES << (node.level % LEVEL_BITS)
        first = (node.index << (node.level % LEVEL_BITS)) % WIDTH * HASH_BYTES
        hashes = data[first : first + span]
        if len(hashes) != span:
            raise AuditRefused(f"a tree of {self.size} leaves has no complete subtree {node}")
        return tile_root(hashes)


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry after its length in two bytes, big-endian."""
    if not 1 <= len(entries) <= WIDTH:
        raise AuditRefused(f"a bundle has 1 to 256 entries, not {len(entries)}")
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise AuditRefused(f"an entry has at most {ENTRY_BYTES_MAX} bytes")
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def unpack_bundle(data: bytes, width: int) -> list[bytes]:
    """The inverse: exactly `width` entries and nothing behind them."""
    entries, place = [], 0
    for _ in range(width):
        length = int.from_bytes(data[place : place + 2])
        entry = data[place + 2 : place + 2 + length]
        if len(data) < place + 2 or len(entry) != length:
            raise AuditRefused("the bundle ends within an entry")
        entries.append(entry)
        place += 2 + length
    if place != len(data):
        raise AuditRefused("the bundle goes on behind its last entry")
    return entries
