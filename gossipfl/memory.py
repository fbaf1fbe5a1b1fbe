"""Fakes that ship: a store in memory that can fail in both ways a disk can."""

from __future__ import annotations

from enum import Enum, auto

from gossipfl.errors import StoreError
from gossipfl.events import Batch, Snapshot
from gossipfl.privacy.entries import LedgerError, require_next


class StoreFault(Enum):
    NOT_DONE = auto()  # the commit fails and nothing was written
    DONE_BUT_ERROR = auto()  # everything was written, and an error is reported
    CRASH_BEFORE = auto()  # the process dies before anything is durable
    CRASH_AFTER = auto()  # the process dies when all is durable, before anybody is told


class Crash(BaseException):
    """The simulated end of the process. Not an Exception: nothing may swallow it."""


class MemoryStore:
    """A Store. `faults` are taken one per commit, None meaning that it goes well."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot or Snapshot()
        self._objects: dict[bytes, bytes] = {}
        self._links: dict[tuple[str, int], bytes] = {}
        self._ledger = list(self._snapshot.ledger)
        self._seq = 0
        self.faults: list[StoreFault | None] = []
        self.commits = 0

    def load(self) -> Snapshot:
        return self._snapshot

    def get(self, digest: bytes) -> bytes | None:
        return self._objects.get(digest)

    def commit(self, batch: Batch) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is StoreFault.CRASH_BEFORE:
            raise Crash
        if fault is StoreFault.NOT_DONE:
            raise StoreError("simulated: nothing was written")
        self._apply(batch)
        if fault is StoreFault.CRASH_AFTER:
            raise Crash
        if fault is StoreFault.DONE_BUT_ERROR:
            raise StoreError("simulated: written, but reported as failed")

    def _apply(self, batch: Batch) -> None:
        try:
            require_next(self._ledger[-1] if self._ledger else None, batch.ledger)
        except LedgerError as error:
            raise StoreError(str(error)) from error
        if batch.seq is not None:
            expected = self._seq + 1
            if batch.seq != expected and not (batch.adopt and batch.seq > self._seq):
                raise StoreError(f"head {batch.seq} does not follow the durable {self._seq}")
            self._seq = batch.seq
        self._ledger += batch.ledger
        self._objects.update(dict(batch.objects))
        self._links.update({(chain, number): name for chain, number, name in batch.links})
        for chain, below in batch.prune:
            for key in [k for k in self._links if k[0] == chain and k[1] < below]:
                self._objects.pop(self._links.pop(key), None)
        for name in batch.retire:
            self._objects.pop(name, None)
        self._snapshot = Snapshot(
            head=batch.head if batch.head is not None else self._snapshot.head,
            receipt=batch.receipt if batch.receipt is not None else self._snapshot.receipt,
            documents={**self._snapshot.documents, **batch.documents},
            ledger=tuple(self._ledger),
        )
        self.commits += 1

    def copy(self) -> MemoryStore:
        """The same durable state, independent from now on (a backup, a restore)."""
        other = MemoryStore(self._snapshot)
        other._objects = dict(self._objects)
        other._links = dict(self._links)
        other._seq = self._seq
        return other
