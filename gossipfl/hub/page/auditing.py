"""The log read in order, and compared with every signed checkpoint on the way.

The page shows nothing of an entry that no verified checkpoint covers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from gossipfl.audit.checkpoints import Checkpoint, SignedCheckpoint, open_checkpoint
from gossipfl.audit.entries import Entry, Payload, parse_entry
from gossipfl.audit.notes import Key
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import WIDTH
from gossipfl.audit.tree import CompactRange, leaf_hash
from gossipfl.hub.page.chronicle import Logged


class Forged(Exception):
    """The log is not what its checkpoints say. The text says where."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a reader has come: the tree and the checkpoint that it ended with."""

    tree: CompactRange = field(default_factory=CompactRange)
    last: Checkpoint | None = None

    @property
    def number(self) -> int:
        return self.last.number if self.last is not None else 0


@dataclass(frozen=True, slots=True)
class Step:
    """The entries of one checkpoint, verified, and the place behind it."""

    signed: SignedCheckpoint
    first: int
    entries: Sequence[Entry]
    payloads: Sequence[Payload | None]
    after: Place

    @property
    def logged(self) -> list[Logged]:
        pairs = zip(self.entries, self.payloads, strict=True)
        return [
            Logged(
                index,
                entry.kind,
                entry.time,
                payload.subject if payload is not None else None,
                payload.data if payload is not None else None,
            )
            for index, (entry, payload) in enumerate(pairs, self.first)
        ]


async def follow(
    reader: LogReader, key: Key, place: Place, *, with_salts: bool = False
) -> AsyncIterator[Step]:
    """What came after `place`, one checkpoint at a time. Raises Forged; AuditRefused and
    DatabaseError if the log cannot be read. `with_salts`: payloads are compared as well."""
    salts = await reader.salts() if with_salts else {}
    newest = await reader.newest()
    if newest < place.number:
        raise Forged(f"checkpoint {place.number} is gone")
    for number in range(place.number + 1, newest + 1):
        try:
            signed = open_checkpoint(await reader.checkpoint(number), key)
        except AuditRefused as error:
            raise Forged(f"checkpoint {number}: {error}") from error
        this = signed.checkpoint
        before = place.last
        if this.number != number or this.previous != (before.digest if before else None):
            raise Forged(f"checkpoint {number} does not follow the one before it")
        first, tree = place.tree.size, place.tree
        if this.size < first:
            raise Forged(f"checkpoint {number} covers less than the one before it")
        entries: list[Entry] = []
        payloads: list[Payload | None] = []
        while tree.size < this.size:
            start, end = tree.size, min(tree.size + WIDTH, this.size)
            raw = await reader.entries(start, end)
            held = await reader.payloads(start, end)
            for index, (data, payload) in enumerate(zip(raw, held, strict=True), start):
                entry = _entry(data, index)
                if with_salts and payload is not None:
                    _open(entry, payload, salts.get(payload.subject), index)
                entries.append(entry)
                payloads.append(payload)
            tree = tree.extended(leaf_hash(data) for data in raw)
        if tree.root() != this.root:
            raise Forged(
                f"one of entries {first} to {this.size - 1} is not what checkpoint {number} signed"
            )
        place = Place(tree, this)
        yield Step(signed, first, entries, payloads, place)


def _entry(data: bytes, index: int) -> Entry:
    try:
        return parse_entry(data)
    except AuditRefused as error:
        raise Forged(f"entry {index}: {error}") from error


def _open(entry: Entry, payload: Payload, salt: bytes | None, index: int) -> None:
    if salt is None or not entry.opens(salt, payload.data):
        raise Forged(f"entry {index}: its payload is not the one that it commits to")
