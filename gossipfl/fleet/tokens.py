"""Invitations that an issuer has given out, and whom they let in: SQLite, one use burned at a time.

A use is burned inside one immediate transaction that also names the joiner, and is durable before
the joiner gets anything. The same joiner asking again (its answer was lost on the way) burns
nothing more; anybody else does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from gossipfl.errors import UserError
from gossipfl.fleet.files import SECRET_MODE, require_private
from gossipfl.messages import Role
from gossipfl.objects import spki_digest

USES_MAX = 10_000  # guess: a fleet far above Limits.devices
TTL_MAX_S = 30 * 86_400  # guess: a month; a line that lies about longer is a risk
BUSY_S = 10.0  # another process (`invite`) may hold the file for one transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    id BLOB PRIMARY KEY, secret BLOB NOT NULL, role TEXT NOT NULL, uses INTEGER NOT NULL,
    left INTEGER NOT NULL CHECK (left >= 0), not_after INTEGER NOT NULL, replaces BLOB);
CREATE TABLE IF NOT EXISTS admissions (
    key BLOB PRIMARY KEY, tls BLOB NOT NULL UNIQUE, device BLOB NOT NULL, role TEXT NOT NULL,
    token BLOB NOT NULL REFERENCES tokens(id), issued INTEGER NOT NULL, replaces BLOB);
"""


class Refusal(StrEnum):
    """Why a joiner was turned away. The value travels; the joiner's words are in `joining`."""

    MALFORMED = "malformed"
    CHALLENGE = "challenge"
    UNKNOWN = "unknown"
    REPLAYED = "replayed"
    PROOF = "proof"
    EXPIRED = "expired"
    USED_UP = "used up"
    KNOWN_KEY = "known key"
    ISSUER = "issuer"
    BUSY = "busy"


class RefusedError(Exception):
    """This joiner is not let in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Token:
    id: bytes
    secret: bytes = field(repr=False)
    role: Role
    uses: int
    left: int
    not_after: int  # seconds since the epoch, by the issuer's clock
    replaces: bytes | None  # the device that its only joiner takes over from


@dataclass(frozen=True, slots=True)
class Admission:
    """Who came in, with which keys (raw) and by which token."""

    key: bytes
    tls: bytes
    device: bytes
    role: Role
    token: bytes
    issued: int
    replaces: bytes | None


class Tokens:
    """Each call opens the file anew, so threads and processes may call at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE))
            require_private(path)
        except OSError as error:
            raise UserError("GF215", f"{path}: {error.strerror or error}") from error
        with self._transaction() as database:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)

    def add(self, token: Token) -> None:
        row = (token.id, token.secret, token.role.value, token.uses, token.left)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, token.not_after, token.replaces),
            )

    def find(self, token: bytes) -> Token | None:
        with self._transaction() as database:
            row = database.execute("SELECT * FROM tokens WHERE id = ?", (token,)).fetchone()
        return _token(row) if row else None

    def burn(self, wanted: Admission, now: int) -> Admission:
        """One use for `wanted`, or its earlier admission. Raises RefusedError."""
        with self._transaction() as database:
            known = database.execute(
                "SELECT * FROM admissions WHERE key = ? OR tls = ?", (wanted.key, wanted.tls)
            ).fetchall()
            row = database.execute("SELECT * FROM tokens WHERE id = ?", (wanted.token,)).fetchone()
            if row is None:
                raise RefusedError(Refusal.UNKNOWN)
            if now > _token(row).not_after:
                raise RefusedError(Refusal.EXPIRED)
            if known:
                return _same(_admission(known[0]), wanted)
            spent = database.execute(
                "UPDATE tokens SET left = left - 1 WHERE id = ? AND left > 0", (wanted.token,)
            )
            if spent.rowcount != 1:
                raise RefusedError(Refusal.USED_UP)
            database.execute(
                "INSERT INTO admissions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(wanted.key, wanted.tls, wanted.device, wanted.role.value),
                    *(wanted.token, wanted.issued, wanted.replaces),
                ),
            )
        return wanted

    def tokens(self) -> list[Token]:
        """All, the newest first."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM tokens ORDER BY rowid DESC").fetchall()
        return [_token(row) for row in rows]

    def admissions(self) -> list[Admission]:
        """All, in the order in which they came in."""
        with self._transaction() as database:
            rows = database.execute("SELECT * FROM admissions ORDER BY rowid").fetchall()
        return [_admission(row) for row in rows]

    def heir(self, device: bytes, but: bytes) -> bytes:
        """Who stands in the place of `device` now, the newest of its line. `but`: the key that is
        asking, which may have been admitted before and lost the answer."""
        heirs = {row.replaces: row.device for row in self.admissions() if row.key != but}
        seen: set[bytes] = set()
        while device in heirs and device not in seen:
            seen.add(device)
            device = heirs[device]
        return device

    def tls_keys(self, device: bytes) -> list[bytes]:
        """SHA-256 of the SPKI of the TLS keys with which this device was admitted."""
        return [spki_digest(row.tls) for row in self.admissions() if row.device == device]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE: whoever is first decides; durable when it ends."""
        database = None
        try:
            database = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise UserError("GF215", f"{self._path}: {error}") from error
        finally:
            if database is not None:
                database.close()


def _same(known: Admission, wanted: Admission) -> Admission:
    """The earlier admission if it is this very joiner's, so that a lost answer can be repeated."""
    asked = (wanted.key, wanted.tls, wanted.token, wanted.replaces)
    if (known.key, known.tls, known.token, known.replaces) != asked:
        raise RefusedError(Refusal.KNOWN_KEY)
    return known


def _token(row: tuple[bytes, bytes, str, int, int, int, bytes | None]) -> Token:
    name, secret, role, uses, left, not_after, replaces = row
    return Token(name, secret, Role(role), uses, left, not_after, replaces)


def _admission(row: tuple[bytes, bytes, bytes, str, bytes, int, bytes | None]) -> Admission:
    key, tls, device, role, token, issued, replaces = row
    return Admission(key, tls, device, Role(role), token, issued, replaces)
