"""The hub's store: one contract, SQLite or PostgreSQL behind it, forward-only migrations."""

from gossipfl.hub.database.contract import (
    Conflict,
    Database,
    DatabaseError,
    DatabaseFull,
    Lease,
    Row,
    Transaction,
    Unavailable,
    Value,
)
from gossipfl.hub.database.migrations import Migration
from gossipfl.hub.database.opening import open_database

__all__ = [
    "Conflict",
    "Database",
    "DatabaseError",
    "DatabaseFull",
    "Lease",
    "Migration",
    "Row",
    "Transaction",
    "Unavailable",
    "Value",
    "open_database",
]
