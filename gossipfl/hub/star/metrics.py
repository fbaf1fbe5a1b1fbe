"""What clients report of the models that they fetched: figures of their own held-out data."""

from __future__ import annotations

from statistics import median

import msgspec

from gossipfl.hub.database import Row, Transaction

TRAIN_S = "train_s"
"""The figure by which a client says how long its last training took."""


async def put(
    tx: Transaction,
    client: bytes,
    version: int,
    accuracy: float | None,
    loss: float | None,
    examples: int,
    details: dict[str, float],
    now: int,
) -> None:
    """One report a client and version: the newest counts."""
    await tx.execute(
        "INSERT INTO star_metrics (client, version, accuracy, loss, examples, details, received)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (client, version) DO UPDATE SET"
        " accuracy = excluded.accuracy, loss = excluded.loss, examples = excluded.examples,"
        " details = excluded.details, received = excluded.received",
        client.hex(),
        version,
        accuracy,
        loss,
        examples,
        msgspec.json.encode(details).decode(),
        now,
    )


async def of_version(tx: Transaction, version: int) -> list[Row]:
    return await tx.rows(
        "SELECT * FROM star_metrics WHERE version = ? ORDER BY client LIMIT 10000", version
    )


async def median_accuracy(tx: Transaction, version: int) -> float | None:
    """Of all reports, so that liars below half of them do not move it out of the others' range."""
    rows = await tx.rows(
        "SELECT accuracy FROM star_metrics WHERE version = ? AND accuracy IS NOT NULL LIMIT 10000",
        version,
    )
    return median(row["accuracy"] for row in rows) if rows else None


async def train_seconds(tx: Transaction, version: int) -> dict[bytes, float]:
    """How long each client's last training took, where it said."""
    found = {}
    for row in await of_version(tx, version):
        details = msgspec.json.decode(row["details"], type=dict[str, float])
        if details.get(TRAIN_S, 0.0) > 0.0:
            found[bytes.fromhex(row["client"])] = details[TRAIN_S]
    return found
