"""From a DSN to an open, migrated database. Every failure is told to a person."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gossipfl.errors import UserError
from gossipfl.hub.database import migrations as steps_of
from gossipfl.hub.database import sqlite_words
from gossipfl.hub.database.contract import Database, DatabaseError, Transaction
from gossipfl.hub.database.migrations import Migration
from gossipfl.hub.database.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from gossipfl.hub.database.postgres import PostgresDatabase

POSTGRES = ("postgresql://", "postgres://")
SQLITE = "sqlite:///"


async def open_database(
    dsn: str | Path,
    migrations: Sequence[Migration] | None = None,
    *,
    password: str | None = None,
) -> Database:
    """A path or `sqlite:///PATH` is SQLite; `postgresql://...` is PostgreSQL.

    `migrations`: None for those of every area of the hub. Raises UserError.
    """
    wanted = steps_of.collect() if migrations is None else migrations
    name = str(dsn)
    if name.startswith(POSTGRES):
        return await _postgres(name, password, wanted)
    if "://" in name and not name.startswith(SQLITE):
        raise UserError("GF801", f"{name.split(':')[0]}:// is neither sqlite nor postgresql")
    return await _sqlite(Path(name.removeprefix(SQLITE)), wanted)


async def _sqlite(path: Path, wanted: Sequence[Migration]) -> SqliteDatabase:
    database = SqliteDatabase(path)
    try:
        await asyncio.to_thread(path.parent.mkdir, 0o700, True, True)
        await asyncio.to_thread(path.touch, 0o600)
        await database.start()
        async with database.transaction() as transaction:
            missing, held = await _missing(transaction, wanted, str(path))
            if missing and held:
                target = path.with_name(f"{path.name}.before-{held}")
                # The writer is ours: nothing changes while the copy is made.
                await asyncio.to_thread(_copy, path, target)
            await steps_of.apply(transaction, missing, sqlite_words.NAMES)
    except (DatabaseError, OSError, sqlite3.Error) as error:
        await database.close()
        raise UserError("GF501", f"{path}: {error}") from error
    except UserError:
        await database.close()
        raise
    return database


def _copy(path: Path, target: Path) -> None:
    """SQLite's own online backup: whole, whatever the write-ahead log holds."""
    target.unlink(missing_ok=True)
    target.touch(0o600)
    with (
        closing(sqlite3.connect(path)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


async def _postgres(
    dsn: str, password: str | None, wanted: Sequence[Migration]
) -> PostgresDatabase:
    try:
        from gossipfl.hub.database.postgres import NAMES, PostgresDatabase
    except ImportError as error:
        raise UserError(
            "GF106", "PostgreSQL needs asyncpg", "install it: pip install 'gossipfl[postgres]'"
        ) from error
    database = PostgresDatabase(dsn, password)
    where = _where(dsn)
    try:
        await database.start()
        async with database.transaction() as transaction:
            await transaction.lock("migrations")
            missing, held = await _missing(transaction, wanted, where)
            if missing and held:
                await _copy_schema(transaction, f"before_{held}")
            await steps_of.apply(transaction, missing, NAMES)
    except DatabaseError as error:
        await database.close()
        raise UserError("GF801", f"{where}: {error}") from error
    except UserError:
        await database.close()
        raise
    return database


async def _missing(
    transaction: Transaction, wanted: Sequence[Migration], where: str
) -> tuple[list[Migration], int]:
    """The steps to take, and how many were taken before."""
    await transaction.execute(steps_of.TABLE)
    applied = await steps_of.applied_in(transaction)
    return steps_of.pending(wanted, applied, where), len(applied)


async def _copy_schema(transaction: Transaction, name: str) -> None:
    """Copies of all tables in a schema of their own, in the same transaction; older ones go."""
    from gossipfl.hub.database.postgres import COPIES

    for row in await transaction.rows(COPIES):
        await transaction.execute(f'DROP SCHEMA "{row["name"]}" CASCADE')
    await transaction.execute(f'CREATE SCHEMA "{name}"')
    tables = await transaction.rows(
        "SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()"
    )
    for row in tables:
        await transaction.execute(f'CREATE TABLE "{name}"."{row["name"]}" AS TABLE "{row["name"]}"')


def _where(dsn: str) -> str:
    """The DSN without its password."""
    parts = urlsplit(dsn)
    return f"postgresql://{parts.netloc.rsplit('@', 1)[-1]}{parts.path}"
