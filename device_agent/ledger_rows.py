"""The privacy ledger's rows in the device's store: appended, read, never changed.

A new identity of the same device has a new store. What the old one spent is read from the state
that `join --replace` has put aside, in the transaction that makes the new store; a document says
that this was done. Without it the node takes everything for spent.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gossipfl.durable import LEDGER_BEHIND, LEDGER_CARRIED
from gossipfl.privacy.entries import LedgerError, Row, require_next

TABLES = """
CREATE TABLE ledger (number INTEGER PRIMARY KEY, data BLOB NOT NULL, link BLOB NOT NULL);
CREATE TRIGGER ledger_is_kept BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_is_fixed BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""
REPLACED = Path("replaced", "state", "store.db")
"""Where `fleet.device` puts an old identity's store, in the state folder."""
FIRST_SCHEMA = 2  # older stores have no ledger

log = logging.getLogger(__name__)


def read(database: sqlite3.Connection) -> tuple[Row, ...]:
    """All rows in order, not checked: `privacy.ledger.replay` does that."""
    found = database.execute("SELECT number, data, link FROM ledger ORDER BY number")
    return tuple(Row(number, data, link) for number, data, link in found)


def append(database: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Within the caller's transaction. Raises LedgerError if they do not follow what is there."""
    if not rows:
        return
    newest = database.execute(
        "SELECT number, data, link FROM ledger ORDER BY number DESC LIMIT 1"
    ).fetchone()
    require_next(Row(*newest) if newest else None, rows)
    database.executemany(
        "INSERT INTO ledger VALUES (?, ?, ?)", [(row.number, row.data, row.link) for row in rows]
    )


def carry(database: sqlite3.Connection, folder: Path) -> None:
    """Into a store that is being made: what the identity before spent, if it can be read."""
    old = folder / REPLACED
    if not old.exists():
        return
    try:
        append(database, _rows_of(old))
    except (sqlite3.Error, OSError, LedgerError) as error:
        log.warning("what the old identity spent cannot be read from %s: %s", old, error)
        return
    say_carried(database)


def say_carried(database: sqlite3.Connection) -> None:
    """Of the identity before, nothing is missing here."""
    data = b"1"
    row = (LEDGER_CARRIED, hashlib.sha256(data).digest(), len(data), data)
    database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", row)


def _rows_of(path: Path) -> tuple[Row, ...]:
    with closing(sqlite3.connect(path)) as old:
        (schema,) = old.execute("PRAGMA user_version").fetchone()
        if schema < FIRST_SCHEMA:
            return ()
        named = "SELECT 1 FROM documents WHERE name = ?"
        if old.execute(named, (LEDGER_BEHIND,)).fetchone() is not None:
            raise LedgerError("more was spent than it says")
        return read(old)
