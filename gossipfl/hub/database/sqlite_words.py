"""SQLite's failures as the contract names them, and how a connection is set up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gossipfl.hub.database.contract import Conflict, DatabaseError, DatabaseFull, Unavailable

NAMES = {"blob": "BLOB", "id": "INTEGER PRIMARY KEY"}
BUSY_MS = 5_000  # a verb such as `gossipfl user add` writes beside the hub: it is done by then
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
    for pragma in (
        f"busy_timeout = {BUSY_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = -{CACHE_KIB}",
        f"journal_size_limit = {LOG_BYTES}",
        *(() if write else ("query_only = ON",)),
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


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
