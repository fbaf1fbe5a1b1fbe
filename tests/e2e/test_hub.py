"""A hub beside real agents: it follows, records, dies, comes back, and nobody needs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import WAIT_S, Fleet, free_ports, until

from gossipfl.audit.entries import EntryKind, parse_entry
from gossipfl.chains import open_receipt
from gossipfl.config import Limits
from gossipfl.fleet.local import enrol_local
from gossipfl.fleet.stored import read_identity
from gossipfl.hub.database import open_database
from gossipfl.hub.log.reading import DatabaseLog
from gossipfl.hub.settings import load_settings, template
from gossipfl.membership import Roster

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class HubProcess:
    """A hub's folder, and its process while it runs."""

    def __init__(self, fleet: Fleet, folder: Path, more: dict[str, Any] | None = None) -> None:
        self.folder = folder
        enrol_local(fleet.fleet, folder, role="hub")
        self.config = folder / "hub.toml"
        self.api_port, peer_port = free_ports(2)
        settings = {
            "api.port": self.api_port,
            "network.hosts": ["127.0.0.1"],
            "network.port": peer_port,
            "network.peers": [f"127.0.0.1:{port}" for port in fleet.ports],
            "discovery.enabled": False,
            "pace.preset": "demo",
            **(more or {}),
        }
        self.config.write_text(template(settings))
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gossipfl", "hub", "run", "--config", str(self.config)],
                stdout=out,
                stderr=out,
                env={**os.environ, "NO_COLOR": "1"},
            )

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def health(self) -> dict[str, Any]:
        """What /health says; empty while nobody answers."""
        assert self.process is None or self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            url = f"http://127.0.0.1:{self.api_port}/health"
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {}

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def logged(self) -> list[tuple[EntryKind, bytes, bytes]]:
        """(kind, subject, payload) of every entry that a checkpoint covers."""

        async def read() -> list[tuple[EntryKind, bytes, bytes]]:
            database = await open_database(load_settings([self.config]).dsn)
            log = DatabaseLog(database)
            found = []
            size = await log.size()
            for first in range(0, size, 256):
                end = min(size, first + 256)
                entries = await log.entries(first, end)
                for entry, payload in zip(entries, await log.payloads(first, end), strict=True):
                    assert payload is not None
                    found.append((parse_entry(entry).kind, payload.subject, payload.data))
            await database.close()
            return found

        return asyncio.run(read())

    def receipts(self) -> dict[bytes, list[int]]:
        """Numbers of the logged receipts of each device, in the log's order, each verified."""
        roster = Roster(read_identity(self.folder).root_key, Limits())
        numbers: dict[bytes, list[int]] = {}
        logged = self.logged()
        for kind, _, data in logged:
            if kind is EntryKind.MEMBER:
                roster.admit(data)
        for kind, device, data in logged:
            if kind is EntryKind.RECEIPT:
                known = roster.by_device(device)
                assert known is not None
                receipt = open_receipt(data, known.member, Limits())
                numbers.setdefault(device, []).append(receipt.number)
        return numbers


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
