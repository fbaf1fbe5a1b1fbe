"""What star mode keeps, how much that is, and what may go: checkpoints, statistics, cleanup."""

from __future__ import annotations

from dataclasses import replace

from gossipfl.hub.database import Transaction
from gossipfl.hub.star import books
from gossipfl.hub.star.orders import CheckpointView, CleanupAnswer, StorageView
from gossipfl.hub.star.values import Details, RoundState, Version

_NAMED = "version IN (SELECT version FROM star_checkpoints)"


async def checkpoints(tx: Transaction, most: int) -> list[CheckpointView]:
    """In the order in which they were made."""
    rows = await tx.rows(
        "SELECT c.name, c.version, c.note, c.made_by, c.created, m.digest, m.bytes"
        " FROM star_checkpoints c JOIN star_models m ON m.version = c.version"
        " ORDER BY c.created, c.name LIMIT ?",
        most,
    )
    return [
        CheckpointView(
            row["name"],
            row["version"],
            row["digest"],
            row["bytes"],
            row["note"],
            row["made_by"],
            row["created"],
        )
        for row in rows
    ]


async def count_checkpoints(tx: Transaction) -> int:
    row = await tx.row("SELECT COUNT(*) AS n FROM star_checkpoints")
    return 0 if row is None else int(row["n"])


async def add_checkpoint(
    tx: Transaction, name: str, version: int, note: str, by: str, now: int
) -> None:
    """Raises Conflict if there is one of this name."""
    await tx.execute(
        "INSERT INTO star_checkpoints (name, version, note, made_by, created)"
        " VALUES (?, ?, ?, ?, ?)",
        name,
        version,
        note,
        by,
        now,
    )


async def drop_checkpoint(tx: Transaction, name: str) -> bool:
    return bool(await tx.execute("DELETE FROM star_checkpoints WHERE name = ?", name))


class OtherBundle(Exception):
    """A checkpoint of another bundle than the one that is trained now."""


async def restore(tx: Transaction, name: str, now: float) -> Version | None:
    """A new version with the very bytes of a checkpoint's, or None if there is no such checkpoint.

    An open round ends: its updates were trained from another model. Raises Conflict if a version
    was made at the same instant, OtherBundle if the checkpoint is of another job than the one in
    force: its parameters are others.
    """
    row = await tx.row("SELECT version FROM star_checkpoints WHERE name = ?", name)
    if row is None:
        return None
    kept = await books.version(tx, row["version"], has_body=True)
    newest = await books.version(tx)
    if kept is None or kept.body is None or newest is None:
        return None
    if kept.bundle != newest.bundle:
        raise OtherBundle(name)
    restored = replace(
        kept,
        number=newest.number + 1,
        parent=kept.number,
        round=newest.round,
        run=newest.run,
        origin=f"checkpoint {name}",
        created=now,
        details=Details(),
    )
    await books.add_version(tx, restored)
    round_ = await books.newest_round(tx)
    if round_ is not None and round_.state is not RoundState.DONE:
        await books.move_round(tx, round_.number, round_.state, RoundState.DONE)
    return restored


async def statistics(tx: Transaction, database_bytes: int) -> StorageView:
    """`database_bytes`: what the store says of itself."""
    models = await _sum(tx, "star_models", f"body IS NOT NULL AND NOT {_NAMED}")
    named = await _sum(tx, "star_models", f"body IS NOT NULL AND {_NAMED}")
    updates = await _sum(tx, "star_updates", "body IS NOT NULL")
    return StorageView(*models, *named, *updates, database_bytes)


async def cleanup(tx: Transaction, versions_kept: int, *, is_dry_run: bool) -> CleanupAnswer:
    """Bodies of models before the newest `versions_kept`, and of updates of rounds that are done.

    Checkpoints and the live version stay, and every line of history.
    """
    newest = await books.version(tx)
    round_ = await books.newest_round(tx)
    live = newest.number if newest is not None else 0
    old = f"body IS NOT NULL AND version <= {live - versions_kept} AND NOT {_NAMED}"
    done = "body IS NOT NULL"
    if round_ is not None:
        last = round_.number if round_.state is RoundState.DONE else round_.number - 1
        done += f" AND round <= {last}"
    models = await _sum(tx, "star_models", old)
    updates = await _sum(tx, "star_updates", done)
    if not is_dry_run:
        await tx.execute(f"UPDATE star_models SET body = NULL WHERE {old}")
        await tx.execute(f"UPDATE star_updates SET body = NULL WHERE {done}")
    return CleanupAnswer(models[1] + updates[1], models[0], updates[0], live)


async def _sum(tx: Transaction, table: str, where: str) -> tuple[int, int]:
    """(how many, bytes)"""
    row = await tx.row(
        f"SELECT COUNT(*) AS n, COALESCE(SUM(bytes), 0) AS size FROM {table} WHERE {where}"
    )
    return (0, 0) if row is None else (int(row["n"]), int(row["size"]))
