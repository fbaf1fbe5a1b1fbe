"""Ending a quarantine at the hub: who may, what not, and that the log says why."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from authkit import PASSWORD, bearer
from pagekit import sighted, story
from pageserver import Served, served
from test_page_routes import HTML, session, sign_in

from gossipfl.audit.entries import EntryKind
from gossipfl.events import Release
from gossipfl.hub.rest.access import Role
from gossipfl.identity import device_name

API = "/api/v1/security/release-device"
WHY = "the sensor was replaced"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Served]:
    """Its node has quarantined the first device, and another is condemned."""
    told = story()
    first, second = told.honest[:2]
    changed = {
        first: replace(told.sightings[first], state="quarantined", why="it lies apart (90 s left)"),
        second: replace(told.sightings[second], state="condemned", why="two heads"),
    }
    told = replace(told, sightings={**told.sightings, **changed})
    async with served(tmp_path, told) as made:
        await sighted(made.database, told)
        await made.feed.look()
        yield made


async def decisions(hub: Served) -> list[Any]:
    async with hub.database.transaction(write=False) as tx:
        rows = await tx.rows(
            "SELECT subject, data FROM log_entries WHERE kind = ?", int(EntryKind.DECISION)
        )
    return [(row["subject"], row["data"]) for row in rows]


async def test_an_operator_releases_with_a_reason_that_is_logged(hub: Served) -> None:
    first, second, third = story().honest[:3]
    ann = bearer((await hub.auth.sessions.begin("ann", Role.OPERATOR, {})).access)
    async with session() as http:

        async def ask(device: str, reason: str = WHY) -> int:
            body = {"device": device, "reason": reason}
            return (await http.post(hub.url + API, json=body, headers=ann)).status

        assert await ask(device_name(first), "x") == 422, "without a reason"
        assert await ask("abcd-efgh") == 422
        assert await ask(device_name(b"n" * 16)) == 404
        assert await ask(device_name(second)) == 409, "what is proven is no opinion"
        assert await ask(device_name(third)) == 409, "nobody holds anything against it"
        assert hub.given == []
        assert await decisions(hub) == []
        assert await ask(device_name(first)) == 200
        assert hub.given == [Release(first)]
        [(subject, data)] = await decisions(hub)
        assert subject == first
        assert WHY.encode() in data
        assert b"ann" not in data, "people are named by pseudonym"
        otto = bearer((await hub.auth.sessions.begin("otto", Role.AUDITOR, {})).access)
        body = {"device": device_name(first), "reason": WHY}
        assert (await http.post(hub.url + API, json=body, headers=otto)).status == 403


async def test_the_page_has_a_form_for_it(hub: Served) -> None:
    first = story().honest[0]
    where = f"{hub.url}/quarantine/release"
    async with session() as http:
        await sign_in(http, hub)
        text = await (await http.get(hub.url, headers=HTML)).text()
        forms = re.findall(r'<form class="ack release-.*?</form>', text, re.DOTALL)
        assert len(forms) == 1, "for what is the hub's own opinion, and for nothing else"
        form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', forms[0]))
        assert form["device"] == device_name(first)
        told = {**form, "reason": WHY}
        for wrong in ({**told, "csrf": "x"}, {**told, "csrf": ""}):
            assert (await http.post(where, data=wrong, allow_redirects=False)).status == 403
        foreign = {"Origin": "https://evil.example"}
        refused = await http.post(where, data=told, headers=foreign, allow_redirects=False)
        assert refused.status == 403
        assert (await http.post(where, data=form, allow_redirects=False)).status == 422
        assert hub.given == []
        done = await http.post(where, data=told, allow_redirects=False)
        assert (done.status, done.headers["Location"]) == (303, "/#security")
        assert hub.given == [Release(first)]
    async with session() as http:
        await sign_in(http, hub, name="otto", password=PASSWORD)
        text = await (await http.get(hub.url, headers=HTML)).text()
        assert 'class="ack release-' not in text
        assert (await http.post(where, data=told, allow_redirects=False)).status == 403
