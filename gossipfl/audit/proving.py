"""Proofs made from what a reader of the log gives: by whoever keeps it, and from an export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gossipfl.audit.checkpoints import parse_checkpoint
from gossipfl.audit.notes import parse_note
from gossipfl.audit.proofs import EntryProof, make_proof
from gossipfl.audit.reader import LogReader
from gossipfl.audit.tiles import TiledNodes, tiles_for
from gossipfl.audit.tree import Node, inclusion_ranges, nodes_of, prove_inclusion


async def fetch_nodes(reader: LogReader, nodes: Iterable[Node], size: int) -> TiledNodes:
    """These nodes of the tree of `size` leaves. Raises AuditRefused."""
    return TiledNodes(size, {tile: await reader.tile(tile) for tile in tiles_for(nodes, size)})


async def prove(
    reader: LogReader, places: Sequence[int], size: int
) -> dict[int, tuple[bytes, list[bytes]]]:
    """Each entry's bytes and its audit path in the tree of `size` leaves. Raises AuditRefused."""
    nodes = [node for index in places for node in nodes_of(inclusion_ranges(index, size))]
    held = await fetch_nodes(reader, nodes, size)
    found = {}
    for index in places:
        (data,) = await reader.entries(index, index + 1)
        found[index] = (data, prove_inclusion(index, size, held))
    return found


async def prove_entry(
    reader: LogReader, note: bytes, index: int, *, closed: bool = False
) -> EntryProof:
    """That it is in the tree of that checkpoint, with what it says unless that was erased or is to
    stay `closed`. Raises AuditRefused."""
    size = parse_checkpoint(parse_note(note).text).size
    entry, hashes = (await prove(reader, [index], size))[index]
    (payload,) = await reader.payloads(index, index + 1)
    opened = None
    if payload is not None and not closed:
        salt = (await reader.salts()).get(payload.subject)
        opened = (salt, payload.data) if salt is not None else None
    return make_proof(index, entry, hashes, note, opened)
