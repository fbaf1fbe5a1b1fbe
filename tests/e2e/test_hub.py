"""A hub beside real agents: it follows, records, dies, comes back, and nobody needs it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import Fleet, until
from hubs import HubProcess

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.fleet.stored import read_identity
from gossipfl.hub.database import DatabaseError, open_database
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TAKE_OVER_S = 10.0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[Fleet, HubProcess]]]:
    opened: list[Any] = []

    def build(count: int, rounds: int | None = None, **more: Any) -> tuple[Fleet, HubProcess]:
        fleet = Fleet(tmp_path, count, "demo", rounds)
        opened.append(fleet)
        hub = HubProcess(fleet, tmp_path / "hub", more)
        opened.append(hub)
        return fleet, hub

    yield build
    for thing in reversed(opened):
        thing.close()


def test_a_hub_that_comes_late_logs_every_receipt_in_order(make: Callable[..., Any]) -> None:
    fleet, hub = make(3, rounds=8)
    for device in fleet.devices:
        device.start()
    for device in fleet.devices:
        device.wait("8 rounds", lambda s: s["base_round"] >= 8)
    hub.start()

    def complete() -> bool:
        hub.health()
        found = hub.receipts()
        return len(found) == 3 and all(len(n) >= 8 for n in found.values())

    until("all receipts are in the log", complete)
    for numbers in hub.receipts().values():
        assert numbers == list(range(1, len(numbers) + 1))
    kinds = {kind for kind, _, _ in hub.logged()}
    assert {EntryKind.MEMBER, EntryKind.POLICY, EntryKind.RECEIPT} <= kinds
    health = hub.health()
    assert health["leads"]
    assert health["status"] == "ok", health
    for device in fleet.devices:
        assert device.status()["evidence"] == 0
    assert hub.end(signal.SIGTERM) == 0


def test_a_killed_hub_goes_on_where_it_stood_and_no_device_waits(make: Callable[..., Any]) -> None:
    fleet, hub = make(3)
    hub.start()
    for device in fleet.devices:
        device.start()
    until("a checkpoint", lambda: hub.health().get("entries", 0) > 5)
    hub.end(signal.SIGKILL)
    rounds = {d: d.status()["base_round"] for d in fleet.devices}
    for device, before in rounds.items():
        device.wait("rounds without a hub", lambda s, b=before: s["base_round"] >= b + 4)
    hub.start()

    def caught_up() -> bool:
        hub.health()
        found = hub.receipts()
        return len(found) == 3 and all(len(n) >= min(rounds.values()) + 3 for n in found.values())

    until("the log has caught up", caught_up)
    for numbers in hub.receipts().values():
        assert numbers == list(range(1, len(numbers) + 1))
    for device in fleet.devices:
        status = device.status()
        assert status["evidence"] == 0


async def test_when_the_leading_hub_is_killed_under_load_another_takes_over(
    make: Callable[..., Any], postgres_dsn: str, tmp_path: Path
) -> None:
    """Two processes, one PostgreSQL, receipts and appends coming in: nothing is lost."""
    fleet, first = make(3, **{"database.dsn": postgres_dsn})
    second = HubProcess(fleet, tmp_path / "hub-2", {"database.dsn": postgres_dsn}, keys_of=first)
    database = await open_database(postgres_dsn)
    log = HubLog(database, log_key(read_identity(first.folder).signer.key_id))
    acknowledged: list[int] = []
    appending = asyncio.create_task(_append(log, acknowledged))
    try:
        first.start()
        await asyncio.to_thread(until, "the first leads", lambda: first.health().get("leads"))
        second.start()
        await asyncio.to_thread(until, "the second answers", lambda: second.health())
        for device in fleet.devices:
            device.start()
        await asyncio.to_thread(
            until, "a checkpoint with receipts", lambda: len(first.receipts()) == 3
        )
        assert second.health()["leads"] is False
        began = time.monotonic()
        first.end(signal.SIGKILL)
        before = await log.reader.newest()
        await asyncio.to_thread(until, "the second leads", lambda: second.health()["leads"])
        taken_over_s = time.monotonic() - began
        rounds = {d: d.status()["base_round"] for d in fleet.devices}
        most = max(rounds.values()) + 3

        def goes_on() -> bool:
            found = second.receipts()
            return len(found) == 3 and all(len(numbers) >= most for numbers in found.values())

        await asyncio.to_thread(until, "receipts after the take-over", goes_on)
    finally:
        appending.cancel()
        await asyncio.gather(appending, return_exceptions=True)
        await asyncio.to_thread(second.close)
    assert taken_over_s < TAKE_OVER_S
    writer = LogWriter(database, log, read_identity(second.folder).signer)
    while await writer.integrate():
        pass
    assert await log.reader.newest() > before
    logged = {
        json.loads(data)["number"]
        for kind, _, data in await asyncio.to_thread(second.logged)
        if kind is EntryKind.ALARM
    }
    assert set(acknowledged) <= logged
    assert len(acknowledged) > 100
    for numbers in (await asyncio.to_thread(second.receipts)).values():
        assert numbers == list(range(1, len(numbers) + 1))
    for device in fleet.devices:
        assert device.status()["evidence"] == 0
    await database.close()


async def _append(log: HubLog, acknowledged: list[int]) -> None:
    """What an instance of the API does all day: append, then tell the client."""
    for number in itertools.count():
        data = json.dumps({"number": number}).encode()
        with contextlib.suppress(DatabaseError):
            await log.append([Draft(EntryKind.ALARM, bytes(16), data, int(time.time()))])
            acknowledged.append(number)
        await asyncio.sleep(0.02)
