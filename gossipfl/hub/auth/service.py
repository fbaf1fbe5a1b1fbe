"""All of this area for one hub, put together: users, sessions, who fails too often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from gossipfl.fleet.throttle import Throttle
from gossipfl.hub.auth import passwords
from gossipfl.hub.auth.authenticator import TokenAuthenticator
from gossipfl.hub.auth.sessions import Sessions
from gossipfl.hub.auth.tokens import Tokens
from gossipfl.hub.auth.users import Users
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.rest.problems import Problem, too_many
from gossipfl.net.tls import Leaf

FAILURES_PER_S = 1 / 30  # NIST SP 800-63B asks to limit guessing; 100 guesses take 50 minutes
FAILURES_BURST = 5.0  # guess: what a person mistypes
ADDRESS_FAILURES_PER_S = 0.2  # as at an issuer (gossipfl.fleet.service)
ADDRESS_FAILURES_BURST = 20.0
RETRY_S = 30


class Members(Protocol):
    """Who belongs to the fleet; `gossipfl.hub.members` knows."""

    async def device(self, member_object: bytes, leaf: Leaf) -> bytes | None:
        """The device's id, if it may speak to us now over a connection with this certificate."""
        ...

    async def is_out(self, transaction: Transaction, subject: str) -> bool:
        """Whether a device, or a client of star mode, was shut out. `subject`: its id in hex."""
        ...


class Auth:
    """`seed` and `audience`: see `Tokens`. `members`: None where no device may get a token."""

    def __init__(
        self,
        database: Database,
        seed: bytes,
        audience: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        *,
        members: Members | None = None,
        log_n: int = passwords.LOG_N,
    ) -> None:
        self.users = Users(database, clock, log_n)
        is_out = members.is_out if members is not None else None
        self.sessions = Sessions(database, Tokens(seed, audience), clock, is_out)
        self.authenticator = TokenAuthenticator(self.sessions)
        self.members = members
        self._monotonic = monotonic
        self._by_name = Throttle(FAILURES_PER_S, FAILURES_BURST)
        self._by_address = Throttle(ADDRESS_FAILURES_PER_S, ADDRESS_FAILURES_BURST)

    async def still(self, request: web.Request) -> bool:
        """Whether the token that a request came with counts now: for answers that take long."""
        try:
            await self.authenticator.claims(request)
        except Problem:
            return False
        return True

    def require_patience(self, name: str, address: str) -> None:
        """Raises Problem 429 if too many logins failed of late: of this name from this address (so
        that nobody can lock others out), or from this address at all."""
        if not self._is_patient(name, address):
            raise too_many("too many failed logins", RETRY_S)

    def _is_patient(self, name: str, address: str) -> bool:
        now = self._monotonic()
        return self._by_name.allow(_pair(name, address), now, cost=0.0) and self._by_address.allow(
            address, now, cost=0.0
        )

    async def failed(self, name: str, address: str) -> None:
        """Counted, and in the log. Raises DatabaseError."""
        now = self._monotonic()
        self._by_name.allow(_pair(name, address), now)
        self._by_address.allow(address, now)
        await self.users.refused(name, is_throttled=False)
        if not self._is_patient(name, address):
            await self.users.refused(name, is_throttled=True)


def _pair(name: str, address: str) -> str:
    return f"{name[:64]} from {address}"
