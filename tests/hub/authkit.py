"""A hub's API on a real store, with clocks that tests move."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gossipfl.hub.auth.routes import AuthApi
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.database import Database
from gossipfl.hub.rest.access import Role
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.routing import Route

Client = TestClient[web.Request, web.Application]
SEED = bytes(range(32))
FLEET = "f1ee7"
PASSWORD = "a sentence of seven words is long"
LOG_N = 4  # of scrypt: weak on purpose, so that tests are quick


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def make_auth(database: Database, clock: Clock) -> Auth:
    """`clock` is wall and monotonic clock in one."""
    return Auth(database, SEED, FLEET, clock, clock, log_n=LOG_N)


async def user(auth: Auth, name: str, role: Role, labels: dict[str, str] | None = None) -> str:
    """A user who has set PASSWORD; an access token of it."""
    code = await auth.users.add(name, role, labels)
    assert await auth.users.redeem(code, PASSWORD)
    return (await auth.sessions.begin(name, role, labels)).access


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def client_of(auth: Auth, routes: Iterable[Route] = (), hub: Any = None) -> Client:
    app = web.Application()
    table = [*AuthApi(auth).routes(), *routes]
    Dispatcher(hub, table, auth.authenticator).install(app)
    return TestClient(TestServer(app))
