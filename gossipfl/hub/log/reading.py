"""`audit.reader.LogReader` on the hub's database: any instance of the hub can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gossipfl.audit.entries import Payload
from gossipfl.audit.notes import SIGNATURES_MAX, Signature, parse_note
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import BUNDLE, WIDTH, Tile, pack_bundle
from gossipfl.audit.tree import HASH_BYTES
from gossipfl.hub.database import Database, Row


class DatabaseLog:
    """See `audit.reader.LogReader`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> int:
        row = await self._row("SELECT MAX(number) AS number FROM log_checkpoints")
        return 0 if row is None or row["number"] is None else int(row["number"])

    async def size(self) -> int:
        """How many entries the newest checkpoint covers."""
        row = await self._row("SELECT size FROM log_checkpoints ORDER BY number DESC LIMIT 1")
        return 0 if row is None else int(row["size"])

    async def staged(self) -> tuple[int, int | None]:
        """How many entries are durable and wait for their place, and the time of the oldest."""
        row = await self._row(
            "SELECT COUNT(*) AS n, MIN(time) AS oldest FROM log_entries WHERE position IS NULL"
        )
        return (0, None) if row is None else (int(row["n"]), row["oldest"])

    async def checkpoint(self, number: int) -> bytes:
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row("SELECT note FROM log_checkpoints WHERE number = ?", number)
            if row is None:
                raise AuditRefused(f"there is no checkpoint {number}")
            lines = await transaction.rows(
                "SELECT name, key_id, blob FROM log_cosignatures WHERE number = ? ORDER BY name "
                "LIMIT ?",
                number,
                SIGNATURES_MAX - 1,
            )
        note = parse_note(row["note"])
        for line in lines:
            note = note.with_signature(Signature(line["name"], line["key_id"], line["blob"]))
        return note.encode()

    async def tile(self, tile: Tile) -> bytes:
        """A hash tile, or an entry bundle (level -1), of exactly `tile.width`."""
        if tile.level == BUNDLE:
            first = tile.index * WIDTH
            return pack_bundle(await self.entries(first, first + tile.width))
        row = await self._row(
            "SELECT data FROM log_tiles WHERE level = ? AND number = ?", tile.level, tile.index
        )
        wanted = tile.width * HASH_BYTES
        if row is None or len(row["data"]) < wanted:
            raise AuditRefused(f"there is no {tile.path}")
        return bytes(row["data"][:wanted])

    async def entries(self, first: int, end: int) -> Sequence[bytes]:
        rows = await self._range("position, entry", first, end)
        return [row["entry"] for row in rows]

    async def payloads(self, first: int, end: int) -> Sequence[Payload | None]:
        rows = await self._range("position, subject, data", first, end)
        return [
            None if row["data"] is None else Payload(row["subject"], row["data"]) for row in rows
        ]

    async def salts(self) -> Mapping[bytes, bytes]:
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows("SELECT subject, salt FROM log_salts")
        return {row["subject"]: row["salt"] for row in rows}

    async def position(self, key: bytes) -> int | None:
        """Where the entry of this dedupe key is; None if it has no place yet."""
        row = await self._row("SELECT position FROM log_entries WHERE dedupe = ?", key)
        return None if row is None else row["position"]

    async def _range(self, columns: str, first: int, end: int) -> list[Row]:
        if not (0 <= first <= end and end - first <= WIDTH):
            raise AuditRefused(f"{first} to {end} is no range of at most {WIDTH} entries")
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows(
                f"SELECT {columns} FROM log_entries WHERE position >= ? AND position < ? "
                "ORDER BY position",
                first,
                end,
            )
        if len(rows) != end - first:
            raise AuditRefused(f"the log does not hold all of {first} to {end}")
        return rows

    async def _row(self, sql: str, *values: int | bytes) -> Row | None:
        async with self._database.transaction(write=False) as transaction:
            return await transaction.row(sql, *values)
