"""What star mode and sessions hold of a client or device, deleted."""

from __future__ import annotations

import msgspec
from msgspec import structs

from gossipfl.hub.auth.sessions import end_sessions
from gossipfl.hub.database import Transaction
from gossipfl.hub.star import books
from gossipfl.hub.star.values import Details, Phase
from gossipfl.reputation import Reputation


async def scrub(transaction: Transaction, subject: bytes, now: int) -> None:
    """All of it. The transaction holds the locks of rounds and of this client."""
    name = subject.hex()
    for table in ("star_clients", "star_updates", "star_metrics", "star_faults"):
        await transaction.execute(f"DELETE FROM {table} WHERE client = ?", name)
    await _rounds(transaction, subject)
    await _versions(transaction, name)
    await _state(transaction, subject)
    await end_sessions(transaction, name, "erased", now, is_out=False)
    await transaction.execute("DELETE FROM auth_sessions WHERE subject = ?", name)
    await transaction.execute("DELETE FROM auth_revocations WHERE value = ?", name)


async def _rounds(transaction: Transaction, subject: bytes) -> None:
    """It was selected in none."""
    rows = await transaction.rows(
        "SELECT round, selected FROM star_rounds WHERE selected LIKE ?", f"%{subject.hex()}%"
    )
    for row in rows:
        ids = bytes.fromhex(row["selected"])
        others = [ids[i : i + 16] for i in range(0, len(ids), 16) if ids[i : i + 16] != subject]
        await transaction.execute(
            "UPDATE star_rounds SET selected = ? WHERE round = ?",
            b"".join(others).hex(),
            row["round"],
        )


async def _versions(transaction: Transaction, name: str) -> None:
    """Models were made of its updates: that somebody's share was there stays, not whose."""
    rows = await transaction.rows(
        "SELECT version, details FROM star_models WHERE details LIKE ?", f"%{name}%"
    )
    for row in rows:
        details = msgspec.json.decode(row["details"], type=Details).without({name})
        await transaction.execute(
            "UPDATE star_models SET details = ? WHERE version = ?",
            msgspec.json.encode(details).decode(),
            row["version"],
        )


async def _state(transaction: Transaction, subject: bytes) -> None:
    data = await books.state(transaction, "reputation")
    if data is not None:
        reputation = Reputation(1.0)
        reputation.load(data, 0.0)
        if subject in reputation.devices():
            reputation.forget(subject)
            await books.set_state(transaction, "reputation", reputation.dump(0.0))
    data = await books.state(transaction, "phase")
    if data is not None:
        told = msgspec.json.decode(data, type=Phase)
        if subject.hex() in told.shut_out:
            left = {k: v for k, v in told.shut_out.items() if k != subject.hex()}
            told = structs.replace(told, shut_out=left)
            await books.set_state(transaction, "phase", msgspec.json.encode(told))
