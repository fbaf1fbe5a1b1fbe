"""The one writer of the log: from staged entries to a signed checkpoint, in one transaction.

In this order: the entries of a batch get their places, the tiles that grew are written, and the
signed checkpoint is put behind the last one by its number, which is the key: whoever lost the race
writes nothing at all. Only then is it published. A crash anywhere leaves the log as it was before,
and what was staged is still staged.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence

from gossipfl.audit.checkpoints import (
    Checkpoint,
    SignedCheckpoint,
    open_checkpoint,
    sign_checkpoint,
)
from gossipfl.audit.entries import SALT_BYTES, EntryKind, make_entry
from gossipfl.audit.tiles import Edge, Tile
from gossipfl.audit.tree import leaf_hash
from gossipfl.errors import UserError
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Conflict, Database, Row, Transaction
from gossipfl.hub.log.log import HubLog
from gossipfl.identity import Signer

BATCH_MAX = 4_096
"""Entries of one checkpoint: guess, a tenth of a second of hashing; their payloads have at most
512 MiB, but are receipts of a kilobyte."""
SQL_NAMES_MAX = 500  # subjects asked for at once: SQLite takes 999 values in old builds

log = logging.getLogger(__name__)

_STAGED = (
    "SELECT id, kind, time, subject, data FROM log_entries WHERE position IS NULL "
    "ORDER BY id LIMIT ?"
)
_PLACE = "UPDATE log_entries SET position = ?, time = ?, entry = ? WHERE id = ?"
_TILE = (
    "INSERT INTO log_tiles (level, number, data) VALUES (?, ?, ?) "
    "ON CONFLICT (level, number) DO UPDATE SET data = excluded.data"
)
_CHECKPOINT = "INSERT INTO log_checkpoints (number, size, note) VALUES (?, ?, ?)"


class LogWriter:
    """`clock` gives whole seconds since 1970; checkpoints never go back in time."""

    def __init__(
        self,
        database: Database,
        hub_log: HubLog,
        signer: Signer,
        clock: Callable[[], int] = lambda: int(time.time()),
        batch_max: int = BATCH_MAX,
    ) -> None:
        self._database = database
        self._log = hub_log
        self._signer = signer
        self._clock = clock
        self._batch_max = batch_max
        self._last: SignedCheckpoint | None = None
        self._edge = Edge()

    async def start(self) -> SignedCheckpoint | None:
        """Where the log stands. Raises UserError GF802 if it is another hub's."""
        async with self._database.transaction(write=False) as transaction:
            await self._refresh(transaction)
        if self._last is not None:
            self._log.published(self._last)
        return self._last

    async def run(self, interval_s: float) -> None:
        """Integrate what is staged every `interval_s`, or earlier when a batch is full."""
        await self.start()
        while True:
            if await self.integrate() < self._batch_max:
                await self._log.wait_hurry(interval_s)

    async def integrate(self) -> int:
        """One batch into the tree: how many entries; 0 if there was nothing, or another writer."""
        try:
            async with self._database.transaction() as transaction:
                await transaction.lock("log")
                made, edge, count = await self._batch(transaction)
        except Conflict:
            log.warning("another writer has moved the log on; this one looks again")
            self._last = None
            return 0
        if made is None:
            return 0
        self._last, self._edge = made, edge
        self._log.published(made)
        return count

    async def integrate_in(self, transaction: Transaction) -> SignedCheckpoint | None:
        """All that is staged, in the caller's transaction. Once that has returned, tell
        `HubLog.published` of the answer, the newest checkpoint that was made."""
        await transaction.lock("log")
        newest: SignedCheckpoint | None = None
        while True:
            made, _, count = await self._batch(transaction)
            newest = made or newest
            if not count:
                return newest

    async def _batch(self, transaction: Transaction) -> tuple[SignedCheckpoint | None, Edge, int]:
        await self._refresh(transaction)
        rows = await _not_erased(transaction, await transaction.rows(_STAGED, self._batch_max))
        if not rows:
            return None, self._edge, 0
        last = self._last.checkpoint if self._last is not None else None
        salts = await self._salts(transaction, [row["subject"] for row in rows])
        before = last.time if last is not None else 0
        now = max(self._clock(), before)
        placed, leaves = _places(rows, salts, self._edge.size, (before, now))
        growth = self._edge.extended(leaves)
        size, root = growth.edge.size, growth.edge.root()
        checkpoint = (
            Checkpoint(self._log.key.name, size, root, 1, now)
            if last is None
            else last.next(size, root, now)
        )
        note = sign_checkpoint(checkpoint, self._signer)
        await transaction.many(_PLACE, placed)
        tiles = [(tile.level, tile.index, data) for tile, data in growth.tiles.items()]
        await transaction.many(_TILE, tiles)
        await transaction.execute(_CHECKPOINT, checkpoint.number, size, note.encode())
        return SignedCheckpoint(checkpoint, note), growth.edge, len(rows)

    async def _refresh(self, transaction: Transaction) -> None:
        """The newest checkpoint and the tree's edge, if another writer has been here."""
        row = await transaction.row(
            "SELECT number, note FROM log_checkpoints ORDER BY number DESC LIMIT 1"
        )
        if row is None:
            self._last, self._edge = None, Edge()
            return
        held = self._last
        if held is None or held.checkpoint.number != row["number"]:
            self._last = _own(row["note"], self._log)
        size = self._last.checkpoint.size if self._last is not None else 0
        if self._edge.size == size:
            return
        tiles: dict[Tile, bytes] = {}
        for tile in Edge.tiles(size):
            found = await transaction.row(
                "SELECT data FROM log_tiles WHERE level = ? AND number = ?", tile.level, tile.index
            )
            if found is not None:
                tiles[tile] = found["data"]
        try:
            self._edge = Edge.load(size, tiles)
        except ValueError as error:
            raise UserError("GF803", str(error)) from error
        if self._last is not None and self._edge.root() != self._last.checkpoint.root:
            what = f"the tiles do not have the root of checkpoint {row['number']}"
            raise UserError("GF803", what)

    async def _salts(self, transaction: Transaction, subjects: list[bytes]) -> dict[bytes, bytes]:
        """The salt of each; made for those that have none."""
        wanted = sorted(set(subjects))
        salts: dict[bytes, bytes] = {}
        for at in range(0, len(wanted), SQL_NAMES_MAX):
            part = wanted[at : at + SQL_NAMES_MAX]
            marks = ", ".join("?" * len(part))
            rows = await transaction.rows(
                f"SELECT subject, salt FROM log_salts WHERE subject IN ({marks})", *part
            )
            salts |= {row["subject"]: row["salt"] for row in rows}
        made = {s: secrets.token_bytes(SALT_BYTES) for s in wanted if s not in salts}
        if made:
            await transaction.many(
                "INSERT INTO log_salts (subject, salt) VALUES (?, ?)", list(made.items())
            )
        return salts | made


async def _not_erased(transaction: Transaction, rows: Sequence[Row]) -> Sequence[Row]:
    """Without what was staged about somebody at the very instant of an erasure: that goes."""
    gone = await pseudonyms.erased(transaction, {row["subject"] for row in rows})
    if not gone:
        return rows
    late = [(row["id"],) for row in rows if row["subject"] in gone]
    await transaction.many("DELETE FROM log_entries WHERE id = ?", late)
    return [row for row in rows if row["subject"] not in gone]


def _own(note: bytes, hub_log: HubLog) -> SignedCheckpoint:
    try:
        return open_checkpoint(note, hub_log.key)
    except ValueError as error:
        raise UserError("GF802", str(error)) from error


def _places(
    rows: Sequence[Row], salts: dict[bytes, bytes], size: int, within: tuple[int, int]
) -> tuple[list[tuple[int, int, bytes, int]], list[bytes]]:
    """What is written into each row, and the leaf hashes. Times rise, and stay `within`."""
    placed, leaves = [], []
    least, most = within
    for position, row in enumerate(rows, size):
        least = max(least, min(row["time"], most))
        kind = EntryKind(row["kind"])
        entry = make_entry(kind, least, salts[row["subject"]], row["data"]).encode()
        placed.append((position, least, entry, row["id"]))
        leaves.append(leaf_hash(entry))
    return placed, leaves
