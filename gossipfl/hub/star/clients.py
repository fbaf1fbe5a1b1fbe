"""Registered clients in the database. Every function takes the transaction that it is a part of."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gossipfl.hub.database import Row, Transaction
from gossipfl.hub.star.budget import Account
from gossipfl.hub.star.values import Client

CLIENTS_MAX = 10_000  # guess: ten times what one hub is measured with


async def get(tx: Transaction, name: bytes) -> Client | None:
    row = await tx.row("SELECT * FROM star_clients WHERE client = ?", name.hex())
    return None if row is None else _client(row)


async def all_of(tx: Transaction, *, seen_since: int = 0) -> list[Client]:
    """All who were seen since then, in the order of their ids."""
    rows = await tx.rows(
        f"SELECT * FROM star_clients WHERE seen >= ? ORDER BY client LIMIT {CLIENTS_MAX}",
        seen_since,
    )
    return [_client(row) for row in rows]


async def count(tx: Transaction) -> int:
    row = await tx.row("SELECT COUNT(*) AS n FROM star_clients")
    return 0 if row is None else int(row["n"])


async def add(tx: Transaction, new: Client) -> None:
    await tx.execute(
        "INSERT INTO star_clients (client, key_id, name, capability, labels, registered, proved,"
        " seen, seq, updates, spends, releases, blocked)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '[]', 0, '')",
        new.id.hex(),
        new.key_id,
        new.name,
        _json(new.capability),
        _json(new.labels),
        new.registered,
        new.proved,
        new.seen,
    )


async def prove(tx: Transaction, new: Client) -> bool:
    """A known client shows its key again; False if this proof is no newer than the last."""
    return bool(
        await tx.execute(
            "UPDATE star_clients SET name = ?, capability = ?, proved = ?, seen = ?"
            " WHERE client = ? AND proved < ?",
            new.name,
            _json(new.capability),
            new.proved,
            new.seen,
            new.id.hex(),
            new.proved,
        )
    )


async def see(tx: Transaction, name: bytes, now: int) -> None:
    await tx.execute(
        "UPDATE star_clients SET seen = ? WHERE client = ? AND seen < ?", now, name.hex(), now
    )


async def block(tx: Transaction, name: bytes, why: str) -> bool:
    """`why` "" unblocks. False if there is no such client."""
    return bool(
        await tx.execute("UPDATE star_clients SET blocked = ? WHERE client = ?", why, name.hex())
    )


async def count_update(
    tx: Transaction, before: Client, seq: int, account: Account, now: int
) -> bool:
    """One more update of a client; False if another one came in between."""
    return bool(
        await tx.execute(
            "UPDATE star_clients SET seq = ?, updates = updates + 1, spends = ?, releases = ?,"
            " seen = ? WHERE client = ? AND seq = ? AND blocked = ''",
            seq,
            account.dump(),
            account.releases,
            now,
            before.id.hex(),
            before.seq,
        )
    )


async def add_fault(tx: Transaction, name: bytes, fault: str) -> None:
    """For the reputation of a registered client, which the leader keeps."""
    await tx.lock(f"star-client {name.hex()}")  # it may be erased at this instant
    if await get(tx, name) is None:
        return
    await tx.execute(
        "INSERT INTO star_faults (client, fault, times) VALUES (?, ?, 1)"
        " ON CONFLICT (client, fault) DO UPDATE SET times = star_faults.times + 1",
        name.hex(),
        fault,
    )


def _client(row: Row) -> Client:
    return Client(
        id=bytes.fromhex(row["client"]),
        key_id=bytes(row["key_id"]),
        name=row["name"],
        capability=msgspec.json.decode(row["capability"], type=dict[str, int]),
        labels=msgspec.json.decode(row["labels"], type=dict[str, str]),
        registered=row["registered"],
        proved=row["proved"],
        seen=row["seen"],
        seq=row["seq"],
        updates=row["updates"],
        account=Account.load(row["spends"], row["releases"]),
        blocked=row["blocked"],
    )


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(dict(value)).decode()
