"""The device's store: SQLite in WAL mode with synchronous=FULL, and files for large objects.

Contract: `gossipfl.interfaces.Store`. One commit is one SQLite transaction, so it is all or nothing
and durable on return; files that it names are durable before it. The own head moves by
compare-and-swap on its number, inside that transaction.

What is smaller than `INLINE_BYTES` lies in the database itself: such a commit costs one fsync (of
the write-ahead log), where a file would add two or three. SQLite's own measurement puts the point
from which files read faster near 100 kB (sqlite.org/intern-v-extern-blob.html); below it the log
is the cheaper place to write. `tests/device_agent/measure_store.py` prints both on a given disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from device_agent import ledger_rows
from device_agent.object_files import FILE_MODE, FOLDER_MODE, Files, ObjectFiles
from device_agent.store_words import is_doubtful, words
from gossipfl.durable import Batch, Snapshot
from gossipfl.errors import StoreError, UserError
from gossipfl.privacy.entries import LedgerError

INLINE_BYTES = 64 * 1024  # see above; half of SQLite's break-even, a 16,000 parameter model
SCHEMA = 2  # 1 had no ledger
BUSY_MS = 5_000  # guess: nobody else writes, but a person may have opened the file to look
CACHE_KIB = 1_024  # guess: the hot rows are few; the default of 2 MiB would count towards idle RSS
LOG_BYTES = 4 * 1024 * 1024  # the log is cut back to SQLite's automatic checkpoint size

_TABLES = """
CREATE TABLE own (
    id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, head BLOB, receipt BLOB);
CREATE TABLE objects (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, data BLOB);
CREATE TABLE documents (
    name TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, data BLOB);
CREATE TABLE links (
    chain TEXT NOT NULL, number INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (chain, number)) WITHOUT ROWID;
INSERT INTO own (id, seq) VALUES (1, 0);
"""

log = logging.getLogger(__name__)


class _Conflict(Exception):
    """The batch's seq does not follow the durable one: a StoreError without any doubt."""


class DeviceStore:
    """A Store in a state folder: `store.db`, `objects/`, and a lock against a second process.

    Any thread may call; writes wait for each other, and `get` does not wait for a commit. Raises
    UserError (GF501 to GF504) when it cannot be opened, StoreError from then on.
    """

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._path = folder / "store.db"
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._doubtful = False
        self._lock_file = -1
        try:
            folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._lock_file = _lock(folder)
            self._objects = ObjectFiles(folder / "objects", files)
            self._create()
            swept = self._objects.sweep(self._named_files())
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise UserError("GF501", f"{folder}: {words(error)}") from error
        except UserError:
            self.close()
            raise
        if swept:
            log.info("removed %d files that nothing names, left by an unclean stop", swept)

    # --- the contract -------------------------------------------------------------------------

    def load(self) -> Snapshot:
        """What is durable, every digest checked. Raises StoreError if it cannot be read."""
        with self._write_lock:
            try:
                return self._snapshot()
            except (sqlite3.Error, OSError) as error:
                self._after(error)
                raise StoreError(f"cannot read what is durable: {words(error)}") from error

    def commit(self, batch: Batch) -> None:
        """See `gossipfl.interfaces.Store`."""
        with self._write_lock:
            written: list[bytes] = []
            try:
                written = self._objects.put(_large(batch))
                replaced = self._transaction(batch)
            except (_Conflict, LedgerError) as error:
                self._remove_unnamed(written)
                raise StoreError(str(error)) from error
            except (sqlite3.Error, OSError) as error:
                if not self._after(error):
                    self._remove_unnamed(written)
                raise StoreError(f"commit failed: {words(error)}") from error
            self._remove_unnamed([*batch.retire, *replaced])

    def get(self, digest: bytes) -> bytes | None:
        """An object that was committed, or None. Raises StoreError if it is damaged."""
        with self._read_lock:
            try:
                data = self._read(digest)
            except FileNotFoundError as error:
                # It may have been retired between the row and the file: then the row is gone too.
                if self._row(digest) is None:
                    return None
                raise StoreError(f"object {digest.hex()[:12]} has lost its file") from error
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"cannot read object: {words(error)}") from error
        if data is not None:
            _check(data, digest, "object " + digest.hex()[:12])
        return data

    def close(self) -> None:
        """Folds the log into the database and gives up the lock. Never raises."""
        with self._write_lock:
            self._disconnect()
        handle, self._lock_file = self._lock_file, -1
        if handle >= 0:
            os.close(handle)

    # --- reading ------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        database = self._connection()
        head, receipt = database.execute("SELECT head, receipt FROM own").fetchone()
        documents: dict[str, bytes] = {}
        for name, digest, data in database.execute("SELECT name, digest, data FROM documents"):
            found = self._objects.get(digest) if data is None else bytes(data)
            _check(found, digest, f"document {name!r}")
            documents[name] = found
        ledger = ledger_rows.read(database)
        return Snapshot(head=head, receipt=receipt, documents=documents, ledger=ledger)

    def _row(self, digest: bytes) -> tuple[bytes | None] | None:
        if self._reader is None:
            self._reader = self._connect()
        found: tuple[bytes | None] | None = self._reader.execute(
            "SELECT data FROM objects WHERE digest = ?", (digest,)
        ).fetchone()
        return found

    def _read(self, digest: bytes) -> bytes | None:
        row = self._row(digest)
        if row is None:
            return None
        return self._objects.get(digest) if row[0] is None else row[0]

    # --- writing ------------------------------------------------------------------------------

    def _transaction(self, batch: Batch) -> list[bytes]:
        """One transaction: digests of the large documents that it replaced."""
        database = self._connection()
        database.execute("BEGIN IMMEDIATE")
        try:
            self._advance(database, batch)
            ledger_rows.append(database, batch.ledger)
            database.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)",
                [(name, len(data), _inline(data)) for name, data in batch.objects],
            )
            database.executemany(
                "DELETE FROM objects WHERE digest = ?", [(name,) for name in batch.retire]
            )
            self._move_chains(database, batch)
            replaced = [
                row[0]
                for name in batch.documents
                for row in database.execute(
                    "SELECT digest FROM documents WHERE name = ? AND data IS NULL", (name,)
                )
            ]
            database.executemany(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)",
                [
                    (name, _digest(data), len(data), _inline(data))
                    for name, data in batch.documents.items()
                ],
            )
            database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            raise
        return replaced

    @staticmethod
    def _move_chains(database: sqlite3.Connection, batch: Batch) -> None:
        """Add the batch's own links, let those leave that retention has given up."""
        database.executemany("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", batch.links)
        for chain, below in batch.prune:
            database.execute(
                "DELETE FROM objects WHERE digest IN"
                " (SELECT digest FROM links WHERE chain = ? AND number < ?)",
                (chain, below),
            )
            database.execute("DELETE FROM links WHERE chain = ? AND number < ?", (chain, below))

    def _advance(self, database: sqlite3.Connection, batch: Batch) -> None:
        """Compare-and-swap of the own head, then head and receipt."""
        if batch.seq is not None:
            (durable,) = database.execute("SELECT seq FROM own").fetchone()
            if batch.seq != durable + 1 and not (batch.adopt and batch.seq > durable):
                raise _Conflict(f"head {batch.seq} does not follow the durable {durable}")
            database.execute("UPDATE own SET seq = ?", (batch.seq,))
        if batch.head is not None:
            database.execute("UPDATE own SET head = ?", (batch.head,))
        if batch.receipt is not None:
            database.execute("UPDATE own SET receipt = ?", (batch.receipt,))

    def _remove_unnamed(self, digests: list[bytes]) -> None:
        """Best effort, after the commit: a file that stays is swept at the next start."""
        if not digests:
            return
        with suppress(sqlite3.Error, OSError):
            database = self._connection()
            for digest in digests:
                named = database.execute(
                    "SELECT 1 FROM objects WHERE digest = ?1 AND data IS NULL UNION ALL"
                    " SELECT 1 FROM documents WHERE digest = ?1 AND data IS NULL",
                    (digest,),
                ).fetchone()
                if named is None:
                    self._objects.remove(digest)

    def _after(self, error: Exception) -> bool:
        """After a failure: whether its outcome is unknown. Then nothing cached is believed."""
        if is_doubtful(error):
            self._disconnect()
            self._doubtful = True
        return self._doubtful

    # --- connections --------------------------------------------------------------------------

    def _connection(self) -> sqlite3.Connection:
        """The writer. After doubt it first makes durable what it is about to read."""
        if self._writer is None:
            self._writer = self._connect()
        if self._doubtful:
            # A failed fsync may leave a commit in the log that a reader sees and a power cut
            # loses. Folding the log into the database writes and syncs it anew, or fails.
            (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreError("the outcome of an earlier commit is still unknown")
            self._doubtful = False
        return self._writer

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        with self._read_lock:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    with suppress(sqlite3.Error):
                        connection.close()
            self._reader = self._writer = None

    def _create(self) -> None:
        """A new database, or one whose schema we know."""
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
        database = self._connection()
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA:
            raise UserError(
                "GF502", f"{self._path} has schema {found}, this program knows up to {SCHEMA}"
            )
        if found < SCHEMA:
            first = _TABLES if found == 0 else ""
            database.executescript(f"BEGIN IMMEDIATE; {first} {ledger_rows.TABLES}")
            if found == 0:
                ledger_rows.carry(database, self._path.parent)
            else:  # the program that wrote it kept no ledger, for this identity or for another
                ledger_rows.say_carried(database)
            database.execute(f"PRAGMA user_version = {SCHEMA}")
            database.execute("COMMIT")

    def _named_files(self) -> frozenset[bytes]:
        rows = self._connection().execute(
            "SELECT digest FROM objects WHERE data IS NULL UNION"
            " SELECT digest FROM documents WHERE data IS NULL"
        )
        return frozenset(row[0] for row in rows)


def _lock(folder: Path) -> int:
    """An exclusive lock for the life of the process: two nodes with one key would equivocate."""
    handle = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError("GF503", f"another process uses {folder}") from error
    return handle


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _inline(data: bytes) -> bytes | None:
    return data if len(data) < INLINE_BYTES else None


def _large(batch: Batch) -> list[tuple[bytes, bytes]]:
    objects = [(name, data) for name, data in batch.objects if len(data) >= INLINE_BYTES]
    documents = [
        (_digest(data), data) for data in batch.documents.values() if len(data) >= INLINE_BYTES
    ]
    return objects + documents


def _check(data: bytes, digest: bytes, what: str) -> None:
    if _digest(data) != digest:
        raise StoreError(f"{what} is damaged: its bytes do not match their digest")
