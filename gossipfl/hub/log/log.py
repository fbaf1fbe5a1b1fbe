"""The log as the rest of the hub sees it: append, ask, wait. Any instance may append."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from gossipfl.audit.checkpoints import SignedCheckpoint
from gossipfl.audit.notes import Key, Signature
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.log.drafts import Draft, dedupe, stage
from gossipfl.hub.log.reading import DatabaseLog

HURRY_ENTRIES = 4_096  # a batch of the writer
LOOK_S = 0.5  # how often a waiter looks: the writer may be another process

_COSIGN = (
    "INSERT INTO log_cosignatures (number, name, key_id, blob) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (number, name) DO UPDATE SET key_id = excluded.key_id, blob = excluded.blob"
)


class HubLog:
    """`key` is the log's public key; its name is the origin of all checkpoints."""

    def __init__(self, database: Database, key: Key) -> None:
        self.key = key
        self.reader = DatabaseLog(database)
        self.newest: SignedCheckpoint | None = None
        """The newest checkpoint that this process has seen or made."""
        self._database = database
        self._waiting = 0  # staged by this process since the writer looked
        self._hurry = asyncio.Event()
        self._published = asyncio.Event()

    async def append(self, drafts: Iterable[Draft]) -> None:
        """Durable on return. Raises DatabaseError: then none of them is logged."""
        rows = list(drafts)
        async with self._database.transaction() as transaction:
            await stage(transaction, rows)
        self.appended(len(rows))

    async def stage(self, transaction: Transaction, drafts: Iterable[Draft]) -> None:
        """The same within the caller's transaction: call `appended` once that has returned."""
        await stage(transaction, drafts)

    def appended(self, count: int) -> None:
        """So many were staged: the writer, if it is here, need not wait once a batch is full."""
        self._waiting += count
        if self._waiting >= HURRY_ENTRIES:
            self._hurry.set()

    def hurry(self) -> None:
        """Somebody waits for the next checkpoint (an export, "verify now")."""
        self._hurry.set()

    async def cosigned(self, number: int, signature: Signature) -> None:
        """Keep a witness's verified signature on checkpoint `number`."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                _COSIGN, number, signature.name, signature.key_id, signature.blob
            )

    async def position(self, key: str, wait_s: float = 0.0) -> int | None:
        """The place of the entry with this key, waiting for the writer for so long."""
        ends = asyncio.get_running_loop().time() + wait_s
        while True:
            found = await self.reader.position(dedupe(key))
            left = ends - asyncio.get_running_loop().time()
            if found is not None or left <= 0:
                return found
            await self._wait(self._published, min(left, LOOK_S))

    def published(self, checkpoint: SignedCheckpoint) -> None:
        """The writer has made a checkpoint."""
        self.newest = checkpoint
        waiters, self._published = self._published, asyncio.Event()
        waiters.set()

    async def wait_hurry(self, wait_s: float) -> None:
        """Until a batch is full or somebody hurries, at most so long."""
        await self._wait(self._hurry, wait_s)
        self._hurry.clear()
        self._waiting = 0

    @staticmethod
    async def _wait(event: asyncio.Event, wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await event.wait()
