"""Checkpoints as objects: what a hub's head names, and devices pull to follow its log.

    [note: bin, [[text: bin, object: bin 32, [hash: bin 32, ...]], ...]]

Checkpoint n is linked to n - 1 and to n & (n - 1), n without its lowest bit: for each the older
checkpoint's text, the digest of its object, and the proof that its tree is the beginning of this
one. So who has been away for any number of checkpoints walks back in some tens of steps, and no
step rests on anybody's word. The same bytes for everybody, whoever passes them on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.audit.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from gossipfl.audit.forks import contradiction
from gossipfl.audit.notes import NOTE_BYTES_MAX, Key, parse_note
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import EMPTY_ROOT, PROOF_HASHES_MAX, verify_growth
from gossipfl.errors import PeerError
from gossipfl.wire import pack, unpack

LINKED_BYTES_MAX = 16_384
"""A note of one signature and two links with proofs of 64 hashes: 5 KiB at most."""


class LogInconsistent(AuditRefused):
    """Signed by the log and well-formed, but its own links contradict it: the log is at fault."""


@dataclass(frozen=True, slots=True)
class Link:
    """An older checkpoint: its text, its object's digest, and the proof of growth since."""

    text: bytes
    object: bytes
    proof: tuple[bytes, ...]

    @property
    def checkpoint(self) -> Checkpoint:
        return parse_checkpoint(self.text)


@dataclass(frozen=True, slots=True)
class Linked:
    """A verified checkpoint object. `digest` is its name."""

    checkpoint: Checkpoint
    note: bytes
    links: tuple[Link, ...]
    digest: bytes

    def towards(self, number: int) -> Link | None:
        """The link that leads farthest down without going below `number`."""
        found = [link for link in self.links if link.checkpoint.number >= number]
        return min(found, key=lambda link: link.checkpoint.number, default=None)


@dataclass(frozen=True, slots=True)
class CheckpointMade:
    """An event of a node: the hub whose node it is has a new checkpoint, and this is its object."""

    data: bytes


def linked_numbers(number: int) -> list[int]:
    """To which older ones checkpoint `number` is linked, the newest first."""
    return [n for n in dict.fromkeys((number - 1, number & (number - 1))) if n > 0]


def pack_linked(note: bytes, links: Sequence[Link]) -> bytes:
    """`note` bears the log's signature alone: cosignatures come later and lie elsewhere."""
    return pack([note, [[link.text, link.object, list(link.proof)] for link in links]])


def origin_of(data: bytes) -> str:
    """Whose log it says it is, before anything is verified. Raises AuditRefused."""
    note, _ = _parts(data)
    return parse_checkpoint(parse_note(note).text).origin


def open_linked(data: bytes, key: Key) -> Linked:
    """Raises AuditRefused; LogInconsistent if the log itself signed what cannot be."""
    note, rows = _parts(data)
    signed = open_checkpoint(note, key)
    checkpoint = signed.checkpoint
    if len(signed.note.signatures) != 1:
        raise AuditRefused("a checkpoint's object bears the log's signature alone")
    links = tuple(_link(row) for row in rows)
    older = [link.checkpoint for link in links]
    if [c.number for c in older] != linked_numbers(checkpoint.number):
        raise AuditRefused(f"checkpoint {checkpoint.number} is linked to the wrong ones")
    if any(c.origin != checkpoint.origin for c in older):
        raise AuditRefused("it is linked to another log")
    if checkpoint.number == 1 and checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise LogInconsistent("an empty log has one root")
    for link, before in zip(links, older, strict=True):
        kind = contradiction(before, checkpoint)
        if kind is not None:
            raise LogInconsistent(f"checkpoint {before.number} contradicts it: {kind.value}")
        try:
            sizes, roots = (before.size, checkpoint.size), (before.root, checkpoint.root)
            verify_growth(*sizes, *roots, link.proof)
        except AuditRefused as error:
            raise LogInconsistent(f"it does not follow checkpoint {before.number}: {error}") from (
                error
            )
    return Linked(checkpoint, note, links, hashlib.sha256(data).digest())


def _parts(data: bytes) -> tuple[bytes, list[object]]:
    try:
        parts = unpack(data, LINKED_BYTES_MAX)
    except PeerError as error:
        raise AuditRefused(str(error)) from error
    match parts:
        case [bytes() as note, [*rows]] if len(note) <= NOTE_BYTES_MAX and pack(parts) == data:
            return note, rows
    raise AuditRefused("a checkpoint's object is [note, links], in shortest msgpack form")


def _link(row: object) -> Link:
    match row:
        case [bytes() as text, bytes() as name, [*hashes]] if len(name) == 32:
            proof = tuple(h for h in hashes if isinstance(h, bytes) and len(h) == 32)
            if len(proof) == len(hashes) <= PROOF_HASHES_MAX:
                link = Link(text, name, proof)
                parse_checkpoint(text)
                return link
    raise AuditRefused("a link is [text, object, proof]")
