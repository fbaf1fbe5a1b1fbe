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

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.errors import UserError
from gossipfl.hub.auth import passwords
from gossipfl.hub.database import Conflict, Database, Row, Transaction
from gossipfl.hub.log.said import Said, say
from gossipfl.hub.rest.access import Role

NAME = re.compile(r"[a-z][a-z0-9._-]{1,31}")
LINK_S = 86_400  # guess: an invitation that was sent in the evening works in the morning
LINK_BYTES = 16  # 128 bits, in hex: a person may have to type it
USERS_MAX = 10_000  # guess: far above the people who look after one fleet
LABELS_MAX = 8  # guess: site, room, kind of machine
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

    async def add(
        self, name: str, role: Role, labels: Mapping[str, str] | None = None, by: str = ""
    ) -> str:
        """A new user; the code of its login link. `by`: who makes it, for the log.

        Raises UserError GF832 or GF833.
        """
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
                told: Said = {"action": "create", "role": role.value, "limited": bool(found)}
                await self._log(transaction, name, told, by)
        except Conflict:
            raise UserError("GF832", f"there is a user {name!r} already") from None
        return await self.link(name, by)

    async def _log(self, transaction: Transaction, name: str, told: Said, by: str = "") -> None:
        """An entry about the account `name`. `by`: whoever changed it, if that was another."""
        doer = account_subject(by) if by else None
        now, about = int(self._clock()), account_subject(name)
        await say(transaction, EntryKind.ACCOUNT, told, now, about=about, by=doer)

    async def link(self, name: str, by: str = "") -> str:
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
            await self._log(transaction, name, {"action": "link"}, by)
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
            told: Said = {"action": "password", "how": "a login code"}
            await self._log(transaction, row["subject"], told)
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
            told: Said = {"action": "password", "how": "the old password"}
            await self._log(transaction, name, told)

    async def refused(self, name: str, *, is_throttled: bool) -> None:
        """Somebody failed to come in as `name`. Strangers cannot make the log grow: it has one such
        entry an hour for each account, and one for all names that are none."""
        now = int(self._clock())
        action = "throttled" if is_throttled else "refused"
        async with self._database.transaction() as transaction:
            row = await transaction.row("SELECT name FROM auth_users WHERE name = ?", _plain(name))
            known = row["name"] if row is not None else ""
            await say(
                transaction,
                EntryKind.LOGIN,
                {"action": action},
                now,
                about=account_subject(known),
                key=f"login/{known}/{action}/{now // 3_600}",
            )

    async def disable(self, name: str, by: str = "") -> User:
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
            await self._log(transaction, name, {"action": "disable"}, by)
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
        if _plain(name) != name:
            return None
        async with self._database.transaction(write=False) as transaction:
            return await transaction.row("SELECT * FROM auth_users WHERE name = ?", name)

    async def _hash(self, password: str, name: str) -> str:
        passwords.require_good(password, name)
        async with self._hashing:
            return await asyncio.to_thread(passwords.make, password, self._log_n)


def _plain(name: str) -> str:
    """What a store takes as text."""
    return name.replace("\0", "")


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
