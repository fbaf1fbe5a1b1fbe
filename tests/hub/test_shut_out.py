"""Who was shut out of the fleet or the hub has no session, whatever it proved before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from authkit import FLEET, LOG_N, PASSWORD, SEED, Clock, client_of, user

from gossipfl.hub.auth import passwords
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.database import Database
from gossipfl.hub.fleet.census import Census
from gossipfl.hub.hub import Hub
from gossipfl.hub.members import FleetMembers
from gossipfl.hub.rest.access import Role
from gossipfl.hub.rest.problems import Problem
from gossipfl.identity import device_name

DEVICE = bytes(range(32))
API = "/api/v1/auth"


@pytest.fixture
def auth(database: Database, clock: Clock) -> Auth:
    members = FleetMembers(cast(Hub, None))
    return Auth(database, SEED, FLEET, clock, clock, members=members, log_n=LOG_N)


def census_of(database: Database, clock: Clock) -> tuple[Census, Any]:
    """A census of a fleet of one device, and what the hub's node thinks of it."""
    known = SimpleNamespace(
        member=SimpleNamespace(device=DEVICE, tls=b"", role=SimpleNamespace(value="device"))
    )
    peer = SimpleNamespace(
        device=device_name(DEVICE), state="live", why="", round=1, reputation=1.0, last_seen_s=0
    )
    fleet = cast(Any, SimpleNamespace(members=[known], neighbours=[]))
    view = cast(Any, SimpleNamespace(peers=[peer], device="another"))
    return Census(database, lambda: fleet, lambda: view, lambda: int(clock.now)), peer


@pytest.mark.parametrize("state", ["revoked", "condemned"])
async def test_a_device_that_is_shut_out_of_the_fleet_loses_its_session(
    auth: Auth, database: Database, clock: Clock, state: str
) -> None:
    census, peer = census_of(database, clock)
    await census.write()
    pair = await auth.sessions.begin(DEVICE.hex(), Role.DEVICE)
    pair = await auth.sessions.refresh(pair.refresh)
    peer.state = state
    await census.write()
    clock.now += 1.0
    with pytest.raises(Problem, match="revoked"):
        await auth.sessions.check(pair.access)
    with pytest.raises(Problem):
        await auth.sessions.refresh(pair.refresh)
    with pytest.raises(Problem, match="shut out"):
        await auth.sessions.begin(DEVICE.hex(), Role.DEVICE)


async def test_a_session_that_nobody_ended_ends_when_a_shut_out_device_refreshes_it(
    auth: Auth, database: Database, clock: Clock
) -> None:
    census, _ = census_of(database, clock)
    await census.write()
    pair = await auth.sessions.begin(DEVICE.hex(), Role.DEVICE)
    async with database.transaction() as transaction:
        await transaction.execute("UPDATE fleet_devices SET state = 'revoked'")
    with pytest.raises(Problem):
        await auth.sessions.refresh(pair.refresh)
    with pytest.raises(Problem, match="revoked"):
        await auth.sessions.check(pair.access)


async def test_a_user_disabled_while_its_password_is_checked_gets_no_session(
    auth: Auth, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await user(auth, "ann", Role.OPERATOR)
    await user(auth, "bob", Role.OPERATOR)
    checking, disabled = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(password: str, stored: str) -> bool:
        loop.call_soon_threadsafe(checking.set)
        asyncio.run_coroutine_threadsafe(disabled.wait(), loop).result(10)
        return True

    monkeypatch.setattr(passwords, "check", slow)
    async with client_of(auth) as client:
        body = {"name": "bob", "password": PASSWORD}
        asked = asyncio.create_task(client.post(f"{API}/token", json=body))
        await asyncio.wait_for(checking.wait(), 10)
        await auth.users.disable("bob")
        await auth.sessions.end_all("bob", "disabled", is_out=True)
        clock.now += 60.0
        disabled.set()
        assert (await asked).status == 401
