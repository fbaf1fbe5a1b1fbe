"""Makes the checkpoint objects of a log that can be read: see `linked`."""

from __future__ import annotations

from collections.abc import Mapping

from gossipfl.audit.checkpoints import Checkpoint, parse_checkpoint
from gossipfl.audit.linked import Link, linked_numbers, pack_linked
from gossipfl.audit.notes import Note, parse_note
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import TiledNodes, tiles_for
from gossipfl.audit.tree import consistency_ranges, nodes_of, prove_consistency

SIGNATURE_BYTES = 64  # Ed25519; a cosignature has its time besides


async def link_checkpoint(reader: LogReader, number: int, names: Mapping[int, bytes]) -> bytes:
    """The object of checkpoint `number`. `names` has the digests of the objects that it is linked
    to (`linked_numbers`). Raises AuditRefused for what the log does not hold."""
    note = parse_note(await reader.checkpoint(number))
    checkpoint = parse_checkpoint(note.text)
    links = []
    for older in linked_numbers(number):
        text = parse_note(await reader.checkpoint(older)).text
        proof = await _proof(reader, parse_checkpoint(text), checkpoint)
        links.append(Link(text, names[older], tuple(proof)))
    return pack_linked(_bare(note, checkpoint.origin).encode(), links)


def _bare(note: Note, origin: str) -> Note:
    """Without cosignatures: they come in over time, and the object never changes."""
    for signature in note.signatures:
        if signature.name == origin and len(signature.blob) == SIGNATURE_BYTES:
            return Note(note.text, (signature,))
    raise AuditRefused("the checkpoint is not signed by its log")


async def _proof(reader: LogReader, old: Checkpoint, new: Checkpoint) -> list[bytes]:
    if old.size in (0, new.size):
        return []
    wanted = tiles_for(nodes_of(consistency_ranges(old.size, new.size)), new.size)
    nodes = TiledNodes(new.size, {tile: await reader.tile(tile) for tile in wanted})
    return prove_consistency(old.size, new.size, nodes)
