"""Alerts as people see them: over the API, and under "Needs you" on the page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from alertkit import Receiver
from authkit import PASSWORD, bearer
from pagekit import facts, story
from pageserver import Served, served
from test_page_routes import HTML, session, sign_in

from gossipfl.hub.alerts.alerter import Alerter
from gossipfl.hub.alerts.messages import Composer
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.page import compose
from gossipfl.hub.page.model import Finding, Kind, Level
from gossipfl.hub.page.query import Query
from gossipfl.hub.page.rendering import Renderer
from gossipfl.hub.rest.access import Role
from gossipfl.identity import device_name, short_name

API = "/api/v1/alerts"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, story()) as made:
        yield made


async def fire(hub: Served, receiver: Receiver | None = None) -> None:
    """The alert of the story, whose last device lies."""
    settings = AlertsSection(hold_s=0)
    composer = Composer("f1ee7", "hubx", "", name_devices=True)
    channels = [receiver] if receiver else []
    clock = lambda: int(hub.clock.now)  # noqa: E731 - as the hub has it
    alerter = Alerter(hub.database, settings, hub.feed, lambda: (), channels, composer, clock)
    hub.feed._tell()
    await alerter.look()
    for channel in channels:
        await alerter.deliver(channel)
    await hub.feed.look_at_alerts()


async def token(hub: Served, name: str, role: Role) -> dict[str, str]:
    return bearer((await hub.auth.sessions.begin(name, role, {})).access)


async def test_an_operator_acknowledges_and_others_see_who(hub: Served) -> None:
    receiver = Receiver()
    receiver.problem = "it answers 500"
    await fire(hub, receiver)
    ann, bob = await token(hub, "ann", Role.OPERATOR), await token(hub, "bob", Role.OPERATOR)
    async with session() as http:
        found = await (await http.get(hub.url + API, headers=ann)).json()
        (alert,) = found["alerts"]
        assert (alert["kind"], alert["device"]) == ("quarantine", device_name(story().liar))
        assert (alert["acknowledged"], alert["resolved"]) == (None, None)
        assert alert["problem"] == "webhook: it answers 500"
        assert found["messages_waiting"] == 1
        path = f"{hub.url}{API}/{alert['id']}/acknowledge"
        answer = await http.post(path, headers=ann)
        assert (answer.status, (await answer.json())["acknowledged_by"]) == (200, "ann")
        again = await http.post(path, headers=bob)  # the first who said so
        assert (again.status, (await again.json())["acknowledged_by"]) == (200, "ann")
        for wrong in ("nothing", "'%20OR%201=1"):
            gone = await http.post(f"{hub.url}{API}/{wrong}/acknowledge", headers=ann)
            assert gone.status in (400, 404)
        bad = await http.get(hub.url + API, params={"state": "closed"}, headers=ann)
        assert bad.status == 422


async def test_who_may_see_and_who_may_acknowledge(hub: Served) -> None:
    await fire(hub)
    async with session() as http:
        for role, sees in (("operator", 200), ("auditor", 200), ("hub", 200), ("viewer", 403),
                           ("device", 403)):  # fmt: skip
            headers = await token(hub, "x", Role(role))
            answer = await http.get(hub.url + API, headers=headers)
            assert answer.status == sees, role
            told = await http.post(f"{hub.url}{API}/x/acknowledge", headers=headers)
            assert told.status == (404 if role == "operator" else 403), role
        assert (await http.get(hub.url + API)).status == 401


async def csrf_of(http: aiohttp.ClientSession, hub: Served) -> tuple[str, dict[str, str]]:
    """The page, and what its first acknowledge form would send."""
    text = await (await http.get(hub.url, headers=HTML)).text()
    fields = re.findall(r'type="hidden" name="(alert|csrf)" value="([^"]+)"', text)
    return text, dict(fields[:2])


async def test_the_page_shows_alerts_and_its_form_acknowledges_them(hub: Served) -> None:
    await fire(hub)
    async with session() as http:
        await sign_in(http, hub)
        text, form = await csrf_of(http, hub)
        assert "Alerts, since when and who looks after them" in text
        assert set(form) == {"alert", "csrf"}
        where = f"{hub.url}/alerts/acknowledge"
        for wrong in ({**form, "csrf": "x"}, {"alert": form["alert"]}, {**form, "csrf": ""}):
            refused = await http.post(where, data=wrong, allow_redirects=False)
            assert refused.status == 403
        foreign = {"Origin": "https://evil.example"}
        refused = await http.post(where, data=form, headers=foreign, allow_redirects=False)
        assert refused.status == 403
        done = await http.post(where, data=form, allow_redirects=False)
        assert (done.status, done.headers["Location"]) == (303, "/#needs")
        text, form = await csrf_of(http, hub)
        assert "ann looks after it" in text
        assert form == {}


async def test_an_auditor_sees_alerts_and_has_no_button(hub: Served) -> None:
    await fire(hub)
    async with session() as http:
        await sign_in(http, hub, name="otto", password=PASSWORD)
        text, form = await csrf_of(http, hub)
        assert "Alerts, since when and who looks after them" in text
        assert form == {}
        assert (await http.post(f"{hub.url}/alerts/acknowledge", data={})).status in (401, 403)
    async with session() as http:
        assert (await http.post(f"{hub.url}/alerts/acknowledge", data={})).status == 401


def test_a_viewer_of_some_labels_sees_no_silent_device_and_no_alert_of_one() -> None:
    told = story()
    later = told.now + 900
    here = {d: replace(s, seen=later - 4) for d, s in told.sightings.items()}
    here[told.honest[0]] = replace(told.sightings[told.honest[0]], state="away")
    star = {told.honest[1].hex(): "it lies apart"}
    made = facts(told, sightings=here, now=later, star_shut_out=star)
    alarm = f"withheld, device {short_name(told.honest[2])}"
    made.chronicle.alarms.append((told.now, alarm))
    page = compose.page(made)
    assert any(alarm in need.words for need in page.needs)
    assert short_name(told.honest[0]) in Renderer().page(page, Query(), "", "ann", True)
    text = Renderer().page(compose.limited(page), Query(), "", "eve", True)
    for device in (*told.honest, told.liar):
        assert short_name(device) not in text


def test_what_the_hub_itself_needs_is_a_card_too() -> None:
    full = Finding(Kind.DISK, "", Level.ALARM, "The hub's disk is full", "make space")
    page = compose.page(facts(story(), local=(full,)))
    assert page.needs[0].title == "The hub's disk is full"
