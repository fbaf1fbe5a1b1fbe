"""People (and scripts) with a name: made by an operator, who never learns their password.

A new user gets a link that works once; with it the user chooses a password. So there is no default
password anywhere, and the first operator of a hub comes by such a link too.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping

import msgspec

from gossipfl.errors import UserError
from gossipfl.hub.auth import passwords
from gossipfl.hub.database import Conflict, Database, Row
from gossipfl.hub.rest.access import Role

NAME = re.compile(r"[a-z][a-z0-9._-]{1,31}")
LINK_S = 86_400  # guess: an invitation that was sent in the evening works in the morning
LINK_BYTES = 16  # 128 bits, in hex: a person may have to type it
USERS_MAX = 10_000  # guess: far above the people who look after one fleet
LABELS_MAX = 8
HASHES_AT_ONCE = 2  # each takes 32 MiB and a core


class User(msgspec.Struct, frozen=True):
    """One user, without anything secret."""

    name: str
    role: Role
    labels: dict[str, str]
    is_disabled: bool
    has_password: bool
    created: int  # seconds since the epoch


class Users:
    """All users of one hub. `clock`: seconds since the epoch."""

    def __init__(
        self, database: Database, clock: Callable[[], float], log_n: int = passwords.LOG_N
    ) -> None:
        self._database = database
        self._clock = clock
        self._log_n = log_n
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)

    async def add(self, name: str, role: Role, labels: Mapping[str, str] | None = None) -> str:
        """A new user; the code of its login link. Raises UserError GF832 or GF833."""
        found = dict(labels or {})
        if not NAME.fullmatch(name):
            raise UserError("GF832", f"{name!r} is no user name: a-z, 0-9, . _ -, 2 to 32 of them")
        if found and role is not Role.VIEWER:
            raise UserError("GF832", "only a viewer can be limited to labels")
        if len(found) > LABELS_MAX or any(len(k) + len(v) > 128 for k, v in found.items()):
            raise UserError("GF832", f"at most {LABELS_MAX} labels of 128 characters")
        try:
            async with self._database.transaction() as transaction:
                row = await transaction.row("SELECT COUNT(*) AS users FROM auth_users")
                if row is not None and row["users"] >= USERS_MAX:
                    raise UserError("GF832", f"there are {USERS_MAX} users already")
                await transaction.execute(
                    "INSERT INTO auth_users (name, role, labels, password, disabled, created)"
                    " VALUES (?, ?, ?, '', 0, ?)",
                    name,
                    role.value,
                    msgspec.json.encode(found).decode(),
                    int(self._clock()),
                )
        except Conflict:
            raise UserError("GF832", f"there is a user {name!r} already") from None
        return await self.link(name)

    async def link(self, name: str) -> str:
        """A code with which the user can set a password, once. Older codes count no more."""
        now, code = int(self._clock()), secrets.token_hex(LINK_BYTES)
        async with self._database.transaction() as transaction:
            row = await transaction.row(
                "SELECT name FROM auth_users WHERE name = ? AND disabled = 0", name
            )
            if row is None:
                raise UserError("GF833", f"there is no user {name!r} who may log in")
            await transaction.execute(
                "DELETE FROM auth_links WHERE subject = ? OR expires <= ?", name, now
            )
            await transaction.execute(
                "INSERT INTO auth_links (digest, subject, expires) VALUES (?, ?, ?)",
                _digest(code),
                name,
                now + LINK_S,
            )
        return code

    async def has_operator(self) -> bool:
        """Whether somebody can steer: an operator who has set a password and is not disabled."""
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row(
                "SELECT COUNT(*) AS ready FROM auth_users"
                " WHERE role = ? AND disabled = 0 AND password <> ''",
                Role.OPERATOR.value,
            )
        return row is not None and bool(row["ready"])

    async def redeem(self, code: str, password: str) -> User | None:
        """The user whose link this is, with the password set; None if the code counts no more.

        Raises UserError GF831 for a bad password, and the code can be used again then.
        """
        now = int(self._clock())
        async with self._database.transaction(write=False) as transaction:
            row = await transaction.row(
                "SELECT subject FROM auth_links WHERE digest = ? AND expires > ?",
                _digest(code),
                now,
            )
        if row is None:
            return None
        hashed = await self._hash(password, row["subject"])
        async with self._database.transaction() as transaction:
            used = await transaction.execute(
                "DELETE FROM auth_links WHERE digest = ? AND expires > ?", _digest(code), now
            )
            if not used:
                return None
            await transaction.execute(
                "UPDATE auth_users SET password = ? WHERE name = ? AND disabled = 0",
                hashed,
                row["subject"],
            )
        return await self.get(row["subject"])

    async def check(self, name: str, password: str) -> User | None:
        """The user, if that is its password and it may log in. Takes as long if there is none."""
        row = await self._row(name)
        stored = row["password"] if row is not None and not row["disabled"] else ""
        async with self._hashing:
            is_right = await asyncio.to_thread(passwords.check, password, stored)
        return _user(row) if row is not None and is_right else None

    async def change(self, name: str, password: str) -> None:
        """Another password. Raises UserError GF831."""
        hashed = await self._hash(password, name)
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "UPDATE auth_users SET password = ? WHERE name = ?", hashed, name
            )

    async def disable(self, name: str) -> User:
        """Nobody can log in as this user any more. Its sessions are ended by who calls.

        Raises UserError GF833, also for the last operator: somebody must be able to steer.
        """
        async with self._database.transaction() as transaction:
            await transaction.lock("auth_users")
            row = await transaction.row("SELECT role FROM auth_users WHERE name = ?", name)
            if row is None:
                raise UserError("GF833", f"there is no user {name!r}")
            others = await transaction.row(
                "SELECT COUNT(*) AS others FROM auth_users"
                " WHERE role = ? AND disabled = 0 AND name <> ?",
                Role.OPERATOR.value,
                name,
            )
            last = others is not None and not others["others"]
            if row["role"] == Role.OPERATOR.value and last:
                raise UserError("GF833", f"{name!r} is the last operator")
            await transaction.execute("UPDATE auth_users SET disabled = 1 WHERE name = ?", name)
            await transaction.execute("DELETE FROM auth_links WHERE subject = ?", name)
        found = await self.get(name)
        if found is None:
            raise UserError("GF833", f"there is no user {name!r}")
        return found

    async def get(self, name: str) -> User | None:
        row = await self._row(name)
        return None if row is None else _user(row)

    async def all(self) -> list[User]:
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows(
                f"SELECT * FROM auth_users ORDER BY name LIMIT {USERS_MAX}"
            )
        return [_user(row) for row in rows]

    async def _row(self, name: str) -> Row | None:
        if "\0" in name:
            return None
        async with self._database.transaction(write=False) as transaction:
            return await transaction.row("SELECT * FROM auth_users WHERE name = ?", name)

    async def _hash(self, password: str, name: str) -> str:
        passwords.require_good(password, name)
        async with self._hashing:
            return await asyncio.to_thread(passwords.make, password, self._log_n)


def _user(row: Row) -> User:
    return User(
        row["name"],
        Role(row["role"]),
        msgspec.json.decode(row["labels"], type=dict[str, str]),
        bool(row["disabled"]),
        bool(row["password"]),
        row["created"],
    )


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
