"""Sessions: refresh tokens that work once, and what is revoked before its time.

A session is a family of refresh tokens of which only the newest counts. Who shows an older one has
it from a thief, or is robbed: the whole family ends (RFC 9700, section 4.14.2). Access tokens live
a quarter of an hour at most, so a revocation has to be remembered for no longer.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.hub.auth.tokens import ACCESS_S, LEEWAY_S, Claims, Tokens
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.log.said import say
from gossipfl.hub.rest.access import Role
from gossipfl.hub.rest.problems import unauthorised

log = logging.getLogger(__name__)

REFRESH_S = 30 * 86_400  # guess: a device that is away for a month logs in again
FAMILIES_PER_SUBJECT = 32  # guess: the browsers and scripts of one person; the oldest end
GRACE_S = 10  # guess: two tabs of one browser ask at one instant, or an answer was lost
SECRET_BYTES = 32
TOKEN_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """What somebody gets who has proved who it is."""

    access: str
    refresh: str
    expires_in_s: int = ACCESS_S
    csrf: str = ""


class Sessions:
    """`clock` gives seconds since the epoch; `device_is_out(transaction, subject)` says whether a
    device was shut out."""

    def __init__(
        self,
        database: Database,
        tokens: Tokens,
        clock: Callable[[], float],
        device_is_out: Callable[[Transaction, str], Awaitable[bool]] | None = None,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock
        self._device_is_out = device_is_out

    # --- beginning and going on ------------------------------------------------------------

    async def begin(
        self,
        subject: str,
        role: Role,
        labels: Mapping[str, str] | None = None,
        *,
        lasts_s: int = REFRESH_S,
        has_csrf: bool = False,
        how: str = "",
    ) -> Pair:
        """A new session; the oldest ones of the same subject end if there are too many.

        how: by what a person came in, for the log: one entry a minute, however often it does.

        Raises Problem 401 if the subject was shut out since it proved who it is.
        """
        now = int(self._clock())
        family = secrets.token_hex(16)
        secret = self._secret(family)
        async with self._database.transaction() as transaction:
            if await self._is_out(transaction, subject, role):
                raise unauthorised("this user or device was shut out")
            await transaction.execute("DELETE FROM auth_sessions WHERE expires <= ?", now)
            rows = await transaction.rows(
                "SELECT family FROM auth_sessions WHERE subject = ?"
                " ORDER BY started DESC LIMIT 200",
                subject,
            )
            for row in rows[FAMILIES_PER_SUBJECT - 1 :]:
                await self._end(transaction, row["family"], "too many sessions")
            await transaction.execute(
                "INSERT INTO auth_sessions"
                " (family, subject, role, labels, secret, started, expires, ended)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, '')",  # what has ended is not kept
                family,
                subject,
                role.value,
                msgspec.json.encode(dict(labels or {})).decode(),
                _digest(secret),
                now,
                now + lasts_s,
            )
            if how:
                told, about = {"action": "login", "how": how}, account_subject(subject)
                key = f"login/{subject}/{how}/{now // 60}"
                await say(transaction, EntryKind.LOGIN, told, now, about=about, key=key)
        csrf = secrets.token_urlsafe(16) if has_csrf else ""
        access = self._tokens.mint(subject, role, family, now, labels, csrf)
        return Pair(access, f"{family}.{secret}", csrf=csrf)

    async def refresh(self, token: str, *, has_csrf: bool = False) -> Pair:
        """The next pair of the session that this is the newest refresh token of.

        Raises Problem 401; an older one of a session that goes on ends that session. Two end
        nothing: what was never issued (the family's id is in every access token, for many to read)
        and the last one for some seconds, which another tab may have used just now.
        """
        now = int(self._clock())
        family, shown = _parts(token)
        secret = self._secret(family)
        reused = is_out = False
        async with self._database.transaction() as transaction:
            # One statement decides, so that of two who show the same token one gets nothing.
            row = await transaction.row(
                "UPDATE auth_sessions SET secret = ?, last_secret = secret, rotated = ?"
                " WHERE family = ? AND secret = ? AND expires > ? RETURNING subject, role, labels",
                _digest(secret),
                now,
                family,
                _digest(shown),
                now,
            )
            if row is None and self._is_ours(family, shown):
                known = await transaction.row(
                    "SELECT last_secret, rotated FROM auth_sessions"
                    " WHERE family = ? AND expires > ?",
                    family,
                    now,
                )
                is_last = known is not None and known["last_secret"] == _digest(shown)
                is_just_now = known is not None and now - known["rotated"] <= GRACE_S
                reused = known is not None and not (is_last and is_just_now)
                if reused:
                    await self._end(transaction, family, "an old refresh token was shown")
            elif row is not None:
                is_out = await self._is_out(transaction, row["subject"], Role(row["role"]))
                if is_out:
                    await self._end(transaction, family, "shut out")
        if reused:
            raise unauthorised("this refresh token was used before: the session has ended")
        if row is None or is_out:
            raise unauthorised("this refresh token is not known, or its session has ended")
        labels = msgspec.json.decode(row["labels"], type=dict[str, str])
        csrf = secrets.token_urlsafe(16) if has_csrf else ""
        role = Role(row["role"])
        access = self._tokens.mint(row["subject"], role, family, now, labels, csrf)
        return Pair(access, f"{family}.{secret}", csrf=csrf)

    async def _is_out(self, transaction: Transaction, subject: str, role: Role) -> bool:
        """Whether it was disabled, blocked or revoked, as of this transaction."""
        if role is Role.DEVICE:
            return self._device_is_out is not None and await self._device_is_out(
                transaction, subject
            )
        row = await transaction.row("SELECT disabled FROM auth_users WHERE name = ?", subject)
        return row is not None and bool(row["disabled"])

    def _secret(self, family: str) -> str:
        random = secrets.token_urlsafe(SECRET_BYTES)
        return f"{random}.{self._tokens.seal(f'{family}.{random}')}"

    def _is_ours(self, family: str, secret: str) -> bool:
        """Whether it was issued for this family, at whatever time and by whatever instance."""
        random, _, seal = secret.partition(".")
        return hmac.compare_digest(seal.encode(), self._tokens.seal(f"{family}.{random}").encode())

    # --- ending ----------------------------------------------------------------------------

    async def end(self, family: str, why: str = "logged out") -> None:
        """This session: its refresh token and its access tokens count no more."""
        async with self._database.transaction() as transaction:
            await self._end(transaction, family, why)

    async def end_of_token(self, token: str) -> None:
        """The session of a refresh token, if it is the newest. Says nothing of whether it was."""
        family, shown = _parts(token)
        async with self._database.transaction() as transaction:
            row = await transaction.row(
                "SELECT family FROM auth_sessions WHERE family = ? AND secret = ?",
                family,
                _digest(shown),
            )
            if row is not None:
                await self._end(transaction, family, "revoked")

    async def end_all(self, subject: str, why: str, *, is_out: bool = False) -> None:
        """Every session of a subject. `is_out`: it was disabled or blocked, so that what another
        instance begins for it at this instant ends too."""
        async with self._database.transaction() as transaction:
            await end_sessions(transaction, subject, why, int(self._clock()), is_out=is_out)

    async def _end(self, transaction: Transaction, family: str, why: str) -> None:
        await _end(transaction, family, why, int(self._clock()))

    # --- checking --------------------------------------------------------------------------

    async def check(self, token: str) -> Claims:
        """The claims of an access token that counts now. Raises TokenError or Problem 401.

        Asked of the database each time: two rows by their key. What is kept in memory would be old
        after a revocation at another instance, and empty where reading it failed."""
        now = int(self._clock())
        claims = self._tokens.open(token, now)
        async with self._database.transaction(write=False) as transaction:
            rows = await transaction.rows(
                "SELECT kind, at FROM auth_revocations WHERE expires > ?"
                " AND ((kind = 'family' AND value = ?) OR (kind = 'subject' AND value = ?))",
                now,
                claims.family,
                claims.subject,
            )
        for row in rows:
            if row["kind"] == "family" or claims.issued <= row["at"]:
                raise unauthorised("this token was revoked")
        return claims


async def end_sessions(
    transaction: Transaction, subject: str, why: str, now: int, *, is_out: bool
) -> None:
    """Every session of a subject; `is_out` as at `Sessions.end_all`. `now`: seconds since 1970."""
    rows = await transaction.rows(
        "SELECT family FROM auth_sessions WHERE subject = ? LIMIT 1000", subject
    )
    for row in rows:
        await _end(transaction, row["family"], why, now)
    if is_out:
        await _revoke(transaction, "subject", subject, now)


async def _end(transaction: Transaction, family: str, why: str, now: int) -> None:
    """The session goes: an old refresh token of it is as unknown as any. Its access tokens are
    remembered for as long as they last."""
    log.debug("session %s... ends: %s", family[:8], why)
    await transaction.execute("DELETE FROM auth_sessions WHERE family = ?", family)
    await _revoke(transaction, "family", family, now)


async def _revoke(transaction: Transaction, kind: str, value: str, now: int) -> None:
    await transaction.execute("DELETE FROM auth_revocations WHERE expires <= ?", now)
    await transaction.execute(
        "INSERT INTO auth_revocations (kind, value, at, expires) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (kind, value) DO UPDATE SET at = excluded.at, expires = excluded.expires",
        kind,
        value,
        now,
        now + ACCESS_S + LEEWAY_S,
    )


def _parts(token: str) -> tuple[str, str]:
    """(family, secret), both empty if no refresh token of ours is made of such characters: a
    cookie may bring any bytes, and a store takes text alone."""
    shown = token[:TOKEN_CHARS_MAX]
    if not (shown.isascii() and shown.isprintable()):
        return "", ""
    family, _, secret = shown.partition(".")
    return family, secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
