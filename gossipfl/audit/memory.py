"""A log in memory: the fake that ships for `LogReader`, with the writer's half for tests and the
simulator. Nothing is durable."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence

from gossipfl.audit.checkpoints import Checkpoint, sign_checkpoint
from gossipfl.audit.entries import EntryKind, Payload, make_entry, pack_erasure
from gossipfl.audit.linking import link_checkpoint
from gossipfl.audit.notes import Note, Signature, log_name
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import Edge, Tile
from gossipfl.audit.tree import HASH_BYTES, leaf_hash
from gossipfl.identity import Signer


def digest_of(data: bytes) -> bytes:
    """An object's name."""
    return hashlib.sha256(data).digest()


class MemoryLog:
    """`salt` gives 32 fresh secret bytes at each call."""

    def __init__(self, signer: Signer, salt: Callable[[], bytes]) -> None:
        self._signer = signer
        self._salt = salt
        self._entries: list[bytes] = []
        self._payloads: list[Payload | None] = []
        self._salts: dict[bytes, bytes] = {}
        self._edge = Edge()
        self._tiles: dict[Tile, bytes] = {}
        self._time = 0
        self.checkpoints: list[Checkpoint] = []
        self._notes: list[Note] = []
        self._objects: list[bytes] = []

    def append(self, kind: EntryKind, time: int, subject: bytes, payload: bytes) -> int:
        """The index of the new entry; `time` is raised to the last one's if it is lower."""
        self._time = max(self._time, time)
        if subject not in self._salts:
            self._salts[subject] = self._salt()
        entry = make_entry(kind, self._time, self._salts[subject], payload).encode()
        self._entries.append(entry)
        self._payloads.append(Payload(subject, payload))
        growth = self._edge.extended([leaf_hash(entry)])
        self._edge = growth.edge
        self._tiles.update((tile.full, data) for tile, data in growth.tiles.items())
        return len(self._entries) - 1

    def publish(self, time: int) -> Note:
        """The next checkpoint, signed."""
        time = max(time, self._time)
        if self.checkpoints:
            made = self.checkpoints[-1].next(self._edge.size, self._edge.root(), time)
        else:
            origin = log_name(self._signer.device)
            made = Checkpoint(origin, self._edge.size, self._edge.root(), 1, time)
        self.checkpoints.append(made)
        self._notes.append(sign_checkpoint(made, self._signer))
        return self._notes[-1]

    def cosigned(self, number: int, signature: Signature) -> None:
        """A witness's signature of that checkpoint has come in."""
        self._notes[number - 1] = self._notes[number - 1].with_signature(signature)

    def branched(self) -> MemoryLog:
        """A second log of the same key that begins as this one: what no honest hub has."""
        shared: dict[int, object] = {id(self._signer): self._signer, id(self._salt): self._salt}
        return copy.deepcopy(self, shared)

    def linked(self, number: int) -> bytes:
        """The object of a checkpoint, as the hub's head names it."""
        while len(self._objects) < number:
            names = {n: digest_of(data) for n, data in enumerate(self._objects, 1)}
            made = link_checkpoint(self, len(self._objects) + 1, names)
            try:
                made.send(None)  # nothing here ever waits
            except StopIteration as done:
                self._objects.append(done.value)
        return self._objects[number - 1]

    def erase(self, subject: bytes, time: int, by: bytes) -> None:
        """Delete a subject's salt and payloads; the entry that says so is about `by`."""
        gone = [i for i, p in enumerate(self._payloads) if p is not None and p.subject == subject]
        self.append(EntryKind.ERASURE, time, by, pack_erasure(gone))
        self._salts.pop(subject)
        for index in gone:
            self._payloads[index] = None

    async def newest(self) -> int:
        return len(self.checkpoints)

    async def checkpoint(self, number: int) -> bytes:
        if not 1 <= number <= len(self._notes):
            raise AuditRefused(f"there is no checkpoint {number}")
        return self._notes[number - 1].encode()

    async def tile(self, tile: Tile) -> bytes:
        data = self._tiles.get(tile.full, b"")[: tile.width * HASH_BYTES]
        if len(data) < tile.width * HASH_BYTES:
            raise AuditRefused(f"there is no {tile.path}")
        return data

    async def entries(self, first: int, end: int) -> Sequence[bytes]:
        self._require(first, end)
        return self._entries[first:end]

    async def payloads(self, first: int, end: int) -> Sequence[Payload | None]:
        self._require(first, end)
        return self._payloads[first:end]

    async def salts(self) -> Mapping[bytes, bytes]:
        return dict(self._salts)

    def _require(self, first: int, end: int) -> None:
        if not 0 <= first <= end <= len(self._entries) or end - first > 256:
            raise AuditRefused(f"there are no entries {first} to {end}")
