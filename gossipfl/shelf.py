"""What a node serves: newest heads by device and objects in memory. Only durable things get here.

The shell answers `GET /v1/heads` and `/v1/objects` from it and falls back to its store for older
objects. `version` grows whenever an own head changes, so that held requests can be answered.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

SMALL_BYTES = 4096
SMALL_MAX = 4096
"""Heads, receipts and members do not compete with updates for room: 4,096 of at most 4 KiB."""


@dataclass(frozen=True, slots=True)
class Served:
    """One answer to a head request."""

    envelope: bytes
    digest: bytes
    member: bytes  # digest of the signer's member object
    update: bytes | None = None  # bytes of the update that the head names, if held in memory
    update_digest: bytes | None = None


class Shelf:
    """Bounded: heads by `heads_max` devices, objects by `bytes_max`, the least used go first."""

    def __init__(self, bytes_max: int, heads_max: int) -> None:
        self.version = 0
        self.member: bytes | None = None
        """Digest of our own member object: the answer to "who are you" before the first head."""
        self._bytes_max = bytes_max
        self._heads_max = heads_max
        self._own: Served | None = None
        self._heads: OrderedDict[bytes, Served] = OrderedDict()
        self._over: OrderedDict[bytes, Served] = OrderedDict()  # of whom nothing new may come
        self._objects: OrderedDict[bytes, bytes] = OrderedDict()
        self._small: OrderedDict[bytes, bytes] = OrderedDict()
        self._pinned: dict[bytes, bytes] = {}
        self._held = 0

    def head(self, device: bytes | None) -> Served | None:
        """The newest head of `device`, or our own for None."""
        if device is None:
            return self._own
        return self._heads.get(device) or self._over.get(device)

    def object(self, digest: bytes) -> bytes | None:
        pinned = self._pinned.get(digest)
        if pinned is not None:
            return pinned
        small = self._small.get(digest)
        if small is not None:
            return small
        found = self._objects.get(digest)
        if found is not None:
            self._objects.move_to_end(digest)
        return found

    def set_own(self, device: bytes, served: Served) -> None:
        self._own = served
        self._heads[device] = served
        self.version += 1

    def set_head(self, device: bytes, served: Served) -> None:
        self._heads[device] = served
        self._heads.move_to_end(device)
        while len(self._heads) > self._heads_max:
            self._heads.popitem(last=False)

    @property
    def held_bytes(self) -> int:
        """Of others' objects; small ones are bounded by number."""
        return self._held

    @property
    def heads(self) -> int:
        return len(self._heads)

    def held_heads(self, but: bytes) -> list[bytes]:
        """Envelopes of the newest heads of everybody but one device."""
        held = [*self._heads.items(), *self._over.items()]
        return [served.envelope for device, served in held if device != but]

    def retire_head(self, device: bytes, served: Served | None = None) -> None:
        """Of a device that is revoked, condemned or enrolled again: its last head says what it had
        spent, which its heir must learn from somebody. `served`: as it is known from before."""
        last = self._heads.pop(device, None) or served
        if last is None:
            return
        self._over[device] = Served(
            last.envelope, last.digest, last.member, None, last.update_digest
        )
        while len(self._over) > self._heads_max:
            self._over.popitem(last=False)

    def pin(self, digest: bytes, data: bytes) -> None:
        """Own objects that heads name: kept until `unpin`."""
        self._pinned[digest] = data

    def unpin(self, digest: bytes) -> None:
        self._pinned.pop(digest, None)

    def put(self, digest: bytes, data: bytes) -> None:
        """Others' objects: kept as long as there is room."""
        if len(data) <= SMALL_BYTES:
            self._small[digest] = data
            while len(self._small) > SMALL_MAX:
                self._small.popitem(last=False)
            return
        if digest in self._objects or digest in self._pinned or len(data) > self._bytes_max:
            return
        self._objects[digest] = data
        self._held += len(data)
        while self._held > self._bytes_max:
            _, old = self._objects.popitem(last=False)
            self._held -= len(old)
