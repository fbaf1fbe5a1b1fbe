"""Rounds, updates and versions in the database. Rows in, values out.

Every function takes the transaction that it is a part of; who decides what belongs together is the
caller.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from gossipfl.hub.database import Row, Transaction
from gossipfl.hub.star.values import Details, Round, RoundState, Version
from gossipfl.hub.star.wire import Model

LOCK = "star rounds"
"""Whoever opens, closes or restores is alone with it; whoever adds an update shares it. So what was
accepted for an open round is there when that round is closed, or was refused. It is not the lease's
name: PostgreSQL has one space of numbers for both, and the leader would wait for itself."""
HISTORY_MAX = 1_000  # of versions in one answer
UPDATE_ROWS_KEPT = 100  # guess: rounds of which it is remembered who sent what


# --- rounds and updates --------------------------------------------------------------------------


async def newest_round(tx: Transaction) -> Round | None:
    row = await tx.row("SELECT * FROM star_rounds ORDER BY round DESC LIMIT 1")
    return None if row is None else _round(row)


async def add_round(tx: Transaction, new: Round) -> None:
    await tx.execute(
        "INSERT INTO star_rounds (round, version, policy, opened, deadline, needed, faulty,"
        " selected, closed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
        new.number,
        new.version,
        new.policy.hex(),
        new.opened,
        new.deadline,
        new.needed,
        new.faulty,
        b"".join(sorted(new.selected)).hex(),
    )


async def move_round(tx: Transaction, number: int, old: RoundState, new: RoundState) -> bool:
    """From one state to the next; False if it is in another one."""
    return bool(
        await tx.execute(
            "UPDATE star_rounds SET closed = ? WHERE round = ? AND closed = ?",
            int(new),
            number,
            int(old),
        )
    )


async def carry_over(tx: Transaction, old: int, new: int) -> list[bytes]:
    """A round was not filled: what it accepted counts in the next one. Whose that is."""
    rows = await tx.rows("SELECT client FROM star_updates WHERE round = ? LIMIT 2000", old)
    await tx.execute("UPDATE star_updates SET round = ? WHERE round = ?", new, old)
    return [bytes.fromhex(row["client"]) for row in rows]


async def add_update(
    tx: Transaction, round_: Round, model: Model, envelope: bytes, body: bytes, now: float
) -> bool:
    """False if this client's update of this round is here already."""
    return bool(
        await tx.execute(
            "INSERT INTO star_updates (client, round, seq, digest, envelope, body, bytes,"
            " examples, accepted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (client, round) DO NOTHING",
            model.client.hex(),
            round_.number,
            model.seq,
            model.digest.hex(),
            envelope,
            body,
            len(body),
            model.examples,
            now,
        )
    )


async def sent(tx: Transaction, client: bytes, number: int) -> str | None:
    """The digest (hex) of a client's update of this round, if it sent one."""
    row = await tx.row(
        "SELECT digest FROM star_updates WHERE client = ? AND round = ?", client.hex(), number
    )
    return None if row is None else str(row["digest"])


async def updates(tx: Transaction, number: int) -> list[Row]:
    """client, digest, seq, examples and body of each, in the order of their clients' ids."""
    return await tx.rows(
        "SELECT client, digest, seq, examples, body FROM star_updates"
        " WHERE round = ? AND body IS NOT NULL ORDER BY client LIMIT 2000",
        number,
    )


async def prune(tx: Transaction, round_: int, rounds_kept: int, version: int, kept: int) -> None:
    """What merging leaves behind: old updates' bodies, then their rows; old models' bodies."""
    await tx.execute(
        "UPDATE star_updates SET body = NULL WHERE round <= ? AND body IS NOT NULL",
        round_ - rounds_kept,
    )
    await tx.execute("DELETE FROM star_updates WHERE round <= ?", round_ - UPDATE_ROWS_KEPT)
    await tx.execute("DELETE FROM star_rounds WHERE round <= ?", round_ - UPDATE_ROWS_KEPT)
    await tx.execute("DELETE FROM star_metrics WHERE version <= ?", version - UPDATE_ROWS_KEPT)
    await drop_bodies(tx, version - kept)


async def drop_bodies(tx: Transaction, up_to: int) -> None:
    """Global models up to this version become a line of history, unless a checkpoint names them."""
    await tx.execute(
        "UPDATE star_models SET body = NULL WHERE version <= ? AND body IS NOT NULL"
        " AND version NOT IN (SELECT version FROM star_checkpoints)",
        up_to,
    )


async def take_faults(tx: Transaction) -> list[Row]:
    """client, fault and times of all since the last time."""
    return await tx.rows("DELETE FROM star_faults RETURNING client, fault, times")


async def count_updates(tx: Transaction, number: int) -> int:
    row = await tx.row("SELECT COUNT(*) AS n FROM star_updates WHERE round = ?", number)
    return 0 if row is None else int(row["n"])


@lru_cache(maxsize=8)
def _ids(text: str) -> frozenset[bytes]:
    """A round's clients. It is asked for with each of their requests, and may be a thousand."""
    ids = bytes.fromhex(text)
    return frozenset(ids[i : i + 16] for i in range(0, len(ids), 16))


def _round(row: Row) -> Round:
    return Round(
        number=row["round"],
        version=row["version"],
        policy=bytes.fromhex(row["policy"]),
        opened=row["opened"],
        deadline=row["deadline"],
        needed=row["needed"],
        faulty=row["faulty"],
        selected=_ids(row["selected"]),
        state=RoundState(row["closed"]),
    )


# --- versions ------------------------------------------------------------------------------------


async def version(
    tx: Transaction, number: int | None = None, *, has_body: bool = False
) -> Version | None:
    """The one with this number, or the newest."""
    columns = _SHOWN + (", body" if has_body else "")
    if number is None:
        row = await tx.row(f"SELECT {columns} FROM star_models ORDER BY version DESC LIMIT 1")
    else:
        row = await tx.row(f"SELECT {columns} FROM star_models WHERE version = ?", number)
    return None if row is None else _version(row)


async def versions(tx: Transaction, most: int, before: int | None = None) -> list[Version]:
    """The newest first; `before`: only older ones."""
    rows = await tx.rows(
        f"SELECT {_SHOWN} FROM star_models WHERE version < ? ORDER BY version DESC LIMIT ?",
        2**62 if before is None else before,
        min(most, HISTORY_MAX),
    )
    return [_version(row) for row in rows]


async def count_merges(tx: Transaction, run: int, bundle: bytes) -> int:
    """How many rounds of this run were merged."""
    row = await tx.row(
        "SELECT COUNT(*) AS n FROM star_models WHERE run = ? AND bundle = ? AND origin = 'merge'",
        run,
        bundle.hex(),
    )
    return 0 if row is None else int(row["n"])


async def add_version(tx: Transaction, new: Version) -> None:
    """Raises Conflict if somebody else made this version."""
    await tx.execute(
        f"INSERT INTO star_models ({_COLUMNS}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        new.number,
        new.parent,
        new.round,
        new.run,
        new.bundle.hex(),
        new.policy.hex(),
        new.origin,
        new.digest.hex(),
        new.size,
        msgspec.json.encode(new.details).decode(),
        new.created,
        new.body,
    )


_COLUMNS = "version, parent, round, run, bundle, policy, origin, digest, bytes, details, created"
_SHOWN = f"{_COLUMNS}, CASE WHEN body IS NULL THEN 0 ELSE 1 END AS is_kept"


def _version(row: Row) -> Version:
    body = row.get("body")
    return Version(
        number=row["version"],
        parent=row["parent"],
        round=row["round"],
        run=row["run"],
        bundle=bytes.fromhex(row["bundle"]),
        policy=bytes.fromhex(row["policy"]),
        origin=row["origin"],
        digest=bytes.fromhex(row["digest"]),
        size=row["bytes"],
        created=row["created"],
        details=msgspec.json.decode(row["details"], type=Details),
        body=None if body is None else bytes(body),
        is_kept=bool(row["is_kept"]),
    )


# --- the rest ------------------------------------------------------------------------------------


async def state(tx: Transaction, name: str) -> bytes | None:
    row = await tx.row("SELECT data FROM star_state WHERE name = ?", name)
    return None if row is None else bytes(row["data"])


async def set_state(tx: Transaction, name: str, data: bytes) -> None:
    await tx.execute(
        "INSERT INTO star_state (name, data) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET data = excluded.data",
        name,
        data,
    )
