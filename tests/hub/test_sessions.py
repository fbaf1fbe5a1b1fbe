"""Sessions over time: what they leave behind, two tabs at one instant, streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from authkit import Clock, bearer, client_of, user
from starkit import stand

from gossipfl.hub import observing
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.auth.sessions import GRACE_S
from gossipfl.hub.database import Database
from gossipfl.hub.observing import ObservingApi
from gossipfl.hub.rest.access import ANYBODY, Role
from gossipfl.hub.rest.problems import Problem
from gossipfl.hub.rest.routing import Call
from gossipfl.hub.star.service import Star


async def rows(database: Database, table: str) -> int:
    async with database.transaction(write=False) as tx:
        row = await tx.row(f"SELECT COUNT(*) AS n FROM {table}")
    assert row is not None
    return int(row["n"])


async def test_sessions_that_were_begun_over_and_over_leave_few_rows(
    auth: Auth, database: Database
) -> None:
    """A client that registers twenty times a second must not fill the disk in a month."""
    for _ in range(50):
        pair = await auth.sessions.begin("aa" * 16, Role.DEVICE)
    assert await rows(database, "auth_sessions") <= 32
    await auth.sessions.end_all("aa" * 16, "blocked", is_out=True)
    assert await rows(database, "auth_sessions") == 0
    with pytest.raises(Problem, match="not known"):
        await auth.sessions.refresh(pair.refresh)


async def test_an_ended_session_is_over_for_its_access_token_too(auth: Auth) -> None:
    pair = await auth.sessions.begin("ann", Role.OPERATOR)
    claims = await auth.sessions.check(pair.access)
    await auth.sessions.end(claims.family)
    with pytest.raises(Problem, match="revoked"):
        await auth.sessions.check(pair.access)


async def test_two_tabs_with_one_refresh_token_do_not_end_the_session(
    auth: Auth, clock: Clock
) -> None:
    pair = await auth.sessions.begin("ann", Role.OPERATOR)
    both = await asyncio.gather(
        auth.sessions.refresh(pair.refresh),
        auth.sessions.refresh(pair.refresh),
        return_exceptions=True,
    )
    (following,) = [found for found in both if not isinstance(found, BaseException)]
    assert sum(isinstance(found, Problem) for found in both) == 1
    newest = await auth.sessions.refresh(following.refresh)
    # One that is older than the last is a thief's or a victim's, however soon it comes.
    with pytest.raises(Problem, match="used before"):
        await auth.sessions.refresh(pair.refresh)
    with pytest.raises(Problem):
        await auth.sessions.refresh(newest.refresh)


async def test_the_last_refresh_token_after_a_while_is_reuse(auth: Auth, clock: Clock) -> None:
    pair = await auth.sessions.begin("ann", Role.OPERATOR)
    following = await auth.sessions.refresh(pair.refresh)
    clock.now += GRACE_S + 1
    with pytest.raises(Problem, match="used before"):
        await auth.sessions.refresh(pair.refresh)
    with pytest.raises(Problem):
        await auth.sessions.refresh(following.refresh)


@pytest.mark.parametrize("label", ["a\x00", "a\nb", "\x7f", "a\n"])
async def test_a_label_has_no_control_characters(auth: Auth, label: str) -> None:
    token = await user(auth, "ann", Role.OPERATOR)
    async with client_of(auth) as client:
        for labels in ({"site": label}, {label: "north"}):
            body = {"name": "vic", "role": "viewer", "labels": labels}
            answer = await client.post("/api/v1/users", json=body, headers=bearer(token))
            assert answer.status == 422, await answer.text()


async def test_events_end_with_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "HEARTBEAT_S", 0.1)
    async with stand(tmp_path, leads=False) as hub, aiohttp.ClientSession() as http:
        claims = await hub.auth.sessions.check(hub.token)
        async with http.get(f"{hub.url}/api/v1/events", headers=bearer(hub.token)) as answer:
            assert answer.status == 200
            assert await answer.content.readuntil(b"still here")
            await hub.auth.sessions.end(claims.family)
            await asyncio.wait_for(answer.content.read(), 10)


async def test_figures_are_not_for_whom_a_proxy_speaks() -> None:
    """On loopback nobody is asked for a token; a proxy there may speak for anybody."""
    api = ObservingApi(cast(Star, None), cast(Any, None), cast(Any, None), is_loopback=True)
    request = make_mocked_request("GET", "/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    with pytest.raises(Problem, match="proxy"):
        await api.metrics(cast(Any, None), Call(request, ANYBODY))
