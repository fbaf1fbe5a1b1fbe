"""Tiles: C2SP's own examples of paths, and trees that come out of tiles as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import (
    BUNDLE,
    Edge,
    Tile,
    TiledNodes,
    levels_of,
    pack_bundle,
    parse_path,
    tile_at,
    tiles_for,
    tiles_of,
    unpack_bundle,
)
from gossipfl.audit.tree import (
    CompactRange,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    nodes_of,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),  # the example of c2sp.org/tlog-tiles
        (Tile(0, 273, 112), "tile/0/273.p/112"),  # and of its tree of 70,000 leaves
        (Tile(1, 1, 17), "tile/1/001.p/17"),
        (Tile(2, 0, 1), "tile/2/000.p/1"),
        (Tile(BUNDLE, 273, 112), "tile/entries/273.p/112"),
        (Tile(BUNDLE, 0), "tile/entries/000"),
        (Tile(0, 1000), "tile/0/x001/000"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1",
        "tile/0/x000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/x1/000",
        "tile/0/001/x000",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/٠٠٠",
        "tile/data/000",
        "tile/0/" + "x999/" * 9 + "999",
        "",
    ],
)
def test_other_spellings_of_a_path_are_refused(path: str) -> None:
    with pytest.raises(AuditRefused):
        parse_path(path)


def test_the_tiles_of_a_tree_are_those_of_the_specification() -> None:
    """c2sp.org/tlog-tiles: 70,000 leaves are 273 full tiles and one of 112, 1 and 17, 1."""
    size = 70_000
    assert [len(list(tiles_of(size, level))) for level in range(levels_of(size))] == [274, 2, 1]
    assert [list(tiles_of(size, n))[-1].width for n in range(3)] == [112, 17, 1]
    assert tile_at(0, 273, size) == Tile(0, 273, 112)
    with pytest.raises(AuditRefused):
        tile_at(0, 274, size)


def grown(leaves: list[bytes], cuts: list[int]) -> tuple[Edge, dict[Tile, bytes]]:
    """An edge that grew in these steps, and all the tiles that it left."""
    edge, tiles, first = Edge(), {}, 0
    for end in [*cuts, len(leaves)]:
        growth = edge.extended(leaves[first:end])
        edge, first = growth.edge, end
        tiles.update(growth.tiles)
    return edge, tiles


LEAVES = [leaf_hash(b"%d" % n) for n in range(70_000)]


@given(st.lists(st.integers(0, 1200), max_size=6))
def test_however_a_tree_grows_its_tiles_and_its_root_are_the_same(ends: list[int]) -> None:
    size = max(ends, default=0)
    edge, tiles = grown(LEAVES[:size], sorted(ends))
    assert edge.root() == CompactRange().extended(LEAVES[:size]).root()
    assert edge.compact() == CompactRange().extended(LEAVES[:size])
    for level in range(levels_of(size)):
        for tile in tiles_of(size, level):
            assert len(tiles[tile]) == 32 * tile.width
    assert Edge.load(size, tiles) == edge


def test_proofs_from_tiles_hold_and_read_only_the_tiles_they_say() -> None:
    edge, tiles = grown(LEAVES, [3, 256, 65_536])
    size, root = len(LEAVES), edge.root()
    for index in (0, 255, 256, 65_535, 65_536, 69_887, 69_999):
        wanted = tiles_for(nodes_of(inclusion_ranges(index, size)), size)
        assert len(wanted) <= 6
        nodes = TiledNodes(size, {tile: tiles[tile] for tile in wanted})
        verify_inclusion(index, size, LEAVES[index], prove_inclusion(index, size, nodes), root)
    for old in (1, 256, 257, 65_536, 69_999):
        wanted = tiles_for(nodes_of(consistency_ranges(old, size)), size)
        nodes = TiledNodes(size, {tile: tiles[tile] for tile in wanted})
        old_root = CompactRange().extended(LEAVES[:old]).root()
        verify_consistency(old, size, old_root, root, prove_consistency(old, size, nodes))


def test_a_missing_or_short_tile_is_refused_not_guessed() -> None:
    edge, tiles = grown(LEAVES[:300], [])
    with pytest.raises(AuditRefused, match="missing"):
        prove_inclusion(5, 300, TiledNodes(300, {}))
    hurt = {tile: data[:-1] for tile, data in tiles.items()}
    with pytest.raises(AuditRefused, match="bytes"):
        prove_inclusion(5, 300, TiledNodes(300, hurt))
    with pytest.raises(AuditRefused):
        Edge.load(300, {})
    with pytest.raises(AuditRefused):
        Edge(301, edge.partial)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=256))
def test_a_bundle_gives_back_its_entries_and_nothing_else(entries: list[bytes]) -> None:
    data = pack_bundle(entries)
    assert unpack_bundle(data, len(entries)) == entries
    for hurt in (data + b"\x00", data[:-1]):
        with pytest.raises(AuditRefused):
            unpack_bundle(hurt, len(entries))
    with pytest.raises(AuditRefused):
        unpack_bundle(data, len(entries) + 1)
