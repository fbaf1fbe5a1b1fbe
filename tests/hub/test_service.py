"""A whole hub in this process: it starts, says how it is, survives a full disk, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from alertkit import SECRET, hook

from gossipfl.audit.entries import EntryKind
from gossipfl.errors import UserError
from gossipfl.fleet.client import enrol
from gossipfl.fleet.desk import Desk
from gossipfl.fleet.files import write_file
from gossipfl.fleet.folders import find_issuer
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.tokens import Tokens
from gossipfl.hub import service as service_room
from gossipfl.hub import supervisor
from gossipfl.hub.database import DatabaseFull
from gossipfl.hub.database.sqlite import SqliteDatabase
from gossipfl.hub.hub import Hub
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.service import Service
from gossipfl.hub.settings import HubSettings, load_settings
from gossipfl.messages import Role
from gossipfl.net.ports import Hooks

WAIT_S = 20.0


@pytest.fixture
def settings(tmp_path: Path) -> HubSettings:
    enrol_local(make_fleet(tmp_path / "fleet"), tmp_path / "hub", role="hub")
    return load_settings(
        (),
        {
            "hub.state": str(tmp_path / "hub"),
            "api.port": "0",
            "network.hosts": '["127.0.0.1"]',
            "discovery.enabled": "false",
            "pace.preset": "demo",
        },
    )


@contextlib.asynccontextmanager
async def running(settings: HubSettings) -> AsyncIterator[tuple[Service, Hub]]:
    service = Service(settings)
    task = asyncio.create_task(service.run(signals=False))
    ready = asyncio.create_task(service.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            task.result()
        assert service.hub is not None
        yield service, service.hub
    finally:
        ready.cancel()
        service.stop()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), WAIT_S)


async def test_guests_see_the_page_and_nobody_else_does(settings: HubSettings) -> None:
    for guests, status in ((True, 200), (False, 401)):
        changed = replace(settings, api=replace(settings.api, guests=guests))
        async with running(changed) as (service, _), aiohttp.ClientSession() as http:
            assert service.address is not None
            answer = await http.get(service.address.url)
            assert answer.status == status
            if guests:
                assert "No device has joined this fleet yet" in await answer.text()
                assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


async def test_guests_are_for_loopback_alone(settings: HubSettings) -> None:
    pem = Path("a.pem")
    api = replace(settings.api, guests=True, host="0.0.0.0", certificate=pem, key=pem)
    with pytest.raises(UserError) as raised:
        await Service(replace(settings, api=api)).run(signals=False)
    assert raised.value.code == "GF102"


async def health(service: Service) -> tuple[int, dict[str, Any]]:
    assert service.address is not None
    async with (
        aiohttp.ClientSession() as session,
        session.get(service.address.url + "/health") as answer,
    ):
        return answer.status, await answer.json()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)


async def until_status(service: Service, wanted: int) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_S):
        while True:
            status, found = await health(service)
            if status == wanted and found["leads"]:
                return found
            await asyncio.sleep(0.1)


def digest_of(hub: Hub) -> str:
    return hashlib.sha256(hub.identity.member_object).hexdigest()


def draft(size: int = 10) -> Draft:
    return Draft(EntryKind.ALARM, bytes(16), b"x" * size, 1_700_000_000)


async def test_a_hub_starts_leads_logs_its_own_admission_and_stops(settings: HubSettings) -> None:
    async with running(settings) as (service, hub):
        found = await until_status(service, 200)
        assert found["problems"] == []
        hub.log.hurry()
        assert await hub.log.position(f"member/{digest_of(hub)}", WAIT_S) is not None
        (payload,) = await hub.log.reader.payloads(0, 1)
        assert payload is not None
        assert payload.subject == hub.identity.signer.device
    async with running(settings) as (service, hub):  # the lease and the port were given back
        assert (await until_status(service, 200))["entries"] >= 1


async def test_a_hub_with_an_issuer_lets_devices_in(settings: HubSettings, tmp_path: Path) -> None:
    issuer = tmp_path / "fleet" / "issuers" / "first"
    desk = replace(settings.desk, issuer=issuer, host="127.0.0.1", port=0)
    async with running(replace(settings, desk=desk)) as (service, _):
        await until_status(service, 200)
        folder = find_issuer(issuer)
        await until((issuer / "address").exists)
        line = Desk(folder.load(), Tokens(folder.tokens)).invite(
            folder.advertised(), int(time.time())
        )
        enrolment = await enrol(line, None, int(time.time()))
        assert enrolment.member.role is Role.DEVICE


async def test_a_second_process_waits_and_then_takes_over(settings: HubSettings) -> None:
    async with running(settings) as (first, _):
        await until_status(first, 200)
        async with running(settings) as (second, _):
            assert (await health(second))[1]["leads"] is False
            first.stop()
            await until_status(second, 200)


async def test_a_full_disk_is_said_reading_goes_on_and_it_recovers(
    settings: HubSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_MAX_S", 1.0)
    async with running(settings) as (service, hub):
        await until_status(service, 200)
        await allow_pages(hub, 1)
        with pytest.raises(DatabaseFull):
            await hub.log.append([draft(100_000)])
        status, found = await health(service)
        assert status == 503
        assert any("the disk is full" in problem for problem in found["problems"])
        assert hub.database.is_full
        async with hub.database.transaction(write=False) as transaction:
            await transaction.rows("SELECT * FROM log_checkpoints")
        await allow_pages(hub, 1_000_000)
        async with asyncio.timeout(10):
            await until_status(service, 200)
        await hub.log.append([draft(100_000)])


async def allow_pages(hub: Hub, most: int) -> None:
    """How large the database may grow; SQLite does not let it be smaller than it is."""
    assert isinstance(hub.database, SqliteDatabase)
    await hub.database._writer.run(
        lambda c: c.execute(f"PRAGMA max_page_count = {most}").fetchone()
    )


async def test_a_killed_background_task_is_restarted_and_reported(
    settings: HubSettings, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    write_file(secret, SECRET)
    async with hook() as listening:
        alerts = replace(settings.alerts, webhook=listening.url, webhook_secret_file=secret)
        async with running(replace(settings, alerts=alerts)) as (service, _):
            await until_status(service, 200)
            (task,) = [t for t in asyncio.all_tasks() if t.get_name() == "hub-recorder"]
            task.cancel()
            await until(task.done)
            found = await until_status(service, 503)
            assert "recorder: it was cancelled" in found["problems"]
            assert found["restarts"]["recorder"] == 1
            await listening.until(lambda contents: any(c["kind"] == "task" for c in contents))
            (content,) = [c for c in listening.contents if c["kind"] == "task"]
            assert content["title"] == "The hub's task 'recorder' failed"
            found = await until_status(service, 200)  # it runs again
            (again,) = [t for t in asyncio.all_tasks() if t.get_name() == "hub-recorder"]
            assert not again.done()


def count_calls(monkeypatch: pytest.MonkeyPatch, of: object, name: str) -> list[None]:
    """Grows by one at each call."""
    calls: list[None] = []
    usual = getattr(of, name)

    def counted() -> None:
        usual()
        calls.append(None)

    monkeypatch.setattr(of, name, counted)
    return calls


async def test_systemd_is_told_and_a_node_that_hangs_starves_its_watchdog(
    settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.setattr(service_room, "TURN_S", 0.3)
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(systemd, lambda: heard.append(systemd.recv(200)))
        async with running(settings) as (service, hub):
            await until(lambda: heard.count(b"WATCHDOG=1") >= 2)
            assert heard[0].startswith(b"READY=1\nSTATUS=answers at http")
            await until_status(service, 200)
            station = hub.leader.station
            assert station is not None
            monkeypatch.setattr(station, "_turned", lambda: None)
            station._driver._hooks = Hooks()  # its loop turns no more
            station.turned_at -= 10
            before = heard.count(b"WATCHDOG=1")
            turns = count_calls(monkeypatch, service, "_feed")
            await until(lambda: len(turns) >= 4)  # the loop that serves goes on
            assert heard.count(b"WATCHDOG=1") <= before + 1
        await until(lambda: b"STOPPING=1" in heard)
        loop.remove_reader(systemd)


async def test_alerts_that_cannot_be_sent_as_configured_stop_the_start(
    settings: HubSettings,
) -> None:
    alerts = replace(settings.alerts, webhook="https://hooks.example/x")
    with pytest.raises(UserError) as raised:
        await Service(replace(settings, alerts=alerts)).run(signals=False)
    assert raised.value.code == "GF811"


async def test_a_devices_folder_is_no_hubs(tmp_path: Path) -> None:
    enrol_local(make_fleet(tmp_path / "fleet"), tmp_path / "device")
    settings = load_settings((), {"hub.state": str(tmp_path / "device"), "api.port": "0"})
    with pytest.raises(UserError) as raised:
        await Service(settings).run(signals=False)
    assert raised.value.code == "GF804"
