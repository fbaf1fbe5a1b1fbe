"""SQLite's failures as the contract names them, and how a connection is set up."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from gossipfl.hub.database.contract import Conflict, DatabaseError, DatabaseFull, Unavailable

NAMES = {"blob": "BLOB", "id": "INTEGER PRIMARY KEY"}
BUSY_MS = 5_000  # a verb such as `gossipfl user add` writes beside the hub: it is done by then
AGAIN_S = 0.005  # the other one is done within one write to the disk
CACHE_KIB = 8_192  # guess: the hub's hot tables; its memory goal is 400 MB
LOG_BYTES = 64 * 1024 * 1024  # the write-ahead log is cut back to this once it is folded in

_FULL = frozenset({sqlite3.SQLITE_FULL})
_AWAY = frozenset(
    {
        *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR),
        *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM),
    }
)


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        _write_ahead(connection)
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            f"cache_size = -{CACHE_KIB}",
            f"journal_size_limit = {LOG_BYTES}",
            *(() if write else ("query_only = ON",)),
        ):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """SQLite does not wait here as its `busy_timeout` says: of several that open a fresh file at
    once all but one are told "locked" (in 18 of 300 tries with six)."""
    until = time.monotonic() + BUSY_MS / 1_000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(AGAIN_S)
        else:
            return


def rewrite(connection: sqlite3.Connection) -> None:
    """The file without what was deleted, and an empty write-ahead log (sqlite.org/lang_vacuum,
    pragma_wal_checkpoint). Raises sqlite3.Error; Unavailable while a reader needs that log."""
    connection.execute("PRAGMA secure_delete = ON")  # what is freed is overwritten with zeros
    connection.execute("VACUUM")
    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise Unavailable("somebody reads: the write-ahead log could not be emptied")


def translated(error: Exception) -> DatabaseError:
    """The contract's error for one of sqlite3's."""
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(str(error))
    # The primary result code (sqlite.org/rescode.html) is the low byte of the extended one.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _FULL:
        return DatabaseFull("the disk is full")
    if code in _AWAY:
        return Unavailable(str(error))
    return DatabaseError(str(error))
