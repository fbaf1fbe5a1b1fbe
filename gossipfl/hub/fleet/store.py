"""The store of the hub's own node, in the hub's database: `gossipfl.interfaces.Store`.

The driver calls from a thread; the database lives in the loop. The own head moves by
compare-and-swap, so that of two hubs with one key only one can ever sign a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gossipfl.durable import Batch, Snapshot
from gossipfl.errors import StoreError
from gossipfl.hub.database import Database, DatabaseError, Transaction

T = TypeVar("T")
ANSWER_S = 60.0  # twice as long as the database lets a transaction take


class NodeStore:
    """Made in the running loop; `load`, `commit` and `get` are for other threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()

    def load(self) -> Snapshot:
        return self._wait(self._load())

    def commit(self, batch: Batch) -> None:
        self._wait(self._commit(batch))

    def get(self, digest: bytes) -> bytes | None:
        return self._wait(self.object(digest))

    async def object(self, digest: bytes) -> bytes | None:
        """For the peer server, in the loop. Raises DatabaseError."""
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row("SELECT data FROM node_objects WHERE digest = ?", digest)
        return None if row is None else row["data"]

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_S)
        except (DatabaseError, TimeoutError) as error:
            raise StoreError(f"the hub's database: {error}") from error

    async def _load(self) -> Snapshot:
        async with self._database.transaction(write=False) as transaction:
            own = await transaction.row("SELECT head, receipt FROM node_own")
            rows = await transaction.rows("SELECT name, data FROM node_documents")
        documents = {row["name"]: row["data"] for row in rows}
        if own is None:
            raise StoreError("the hub's database has no row for its own node")
        return Snapshot(head=own["head"], receipt=own["receipt"], documents=documents)

    async def _commit(self, batch: Batch) -> None:
        if batch.ledger:
            raise StoreError("a hub publishes no model, so it has no privacy ledger")
        async with self._database.transaction() as transaction:
            await transaction.lock("node")
            await _advance(transaction, batch)
            if batch.objects:
                await transaction.many(
                    "INSERT INTO node_objects (digest, data) VALUES (?, ?) "
                    "ON CONFLICT (digest) DO NOTHING",
                    batch.objects,
                )
            await transaction.many(
                "DELETE FROM node_objects WHERE digest = ?", [(name,) for name in batch.retire]
            )
            await _move_chains(transaction, batch)
            await transaction.many(
                "INSERT INTO node_documents (name, data) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET data = excluded.data",
                list(batch.documents.items()),
            )


async def _advance(transaction: Transaction, batch: Batch) -> None:
    """Compare-and-swap of the own head. Raises StoreError if it does not follow."""
    if batch.seq is not None:
        row = await transaction.row("SELECT seq FROM node_own")
        durable = int(row["seq"]) if row is not None else 0
        if batch.seq != durable + 1 and not (batch.adopt and batch.seq > durable):
            raise StoreError(f"head {batch.seq} does not follow the durable {durable}")
        await transaction.execute("UPDATE node_own SET seq = ?", batch.seq)
    if batch.head is not None:
        await transaction.execute("UPDATE node_own SET head = ?", batch.head)
    if batch.receipt is not None:
        await transaction.execute("UPDATE node_own SET receipt = ?", batch.receipt)


async def _move_chains(transaction: Transaction, batch: Batch) -> None:
    """Add the batch's own links, let those leave that retention has given up."""
    await transaction.many(
        "INSERT INTO node_links (chain, number, digest) VALUES (?, ?, ?) "
        "ON CONFLICT (chain, number) DO UPDATE SET digest = excluded.digest",
        batch.links,
    )
    for chain, below in batch.prune:
        await transaction.execute(
            "DELETE FROM node_objects WHERE digest IN "
            "(SELECT digest FROM node_links WHERE chain = ? AND number < ?)",
            chain,
            below,
        )
        await transaction.execute(
            "DELETE FROM node_links WHERE chain = ? AND number < ?", chain, below
        )
