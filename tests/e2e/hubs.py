"""A hub beside a fleet of real agents, for tests: keys, config, process, and what it logged."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from agents import WAIT_S, Fleet, free_ports

from gossipfl.audit.entries import EntryKind, parse_entry
from gossipfl.chains import open_receipt
from gossipfl.config import Limits
from gossipfl.fleet.local import enrol_local
from gossipfl.fleet.stored import read_identity
from gossipfl.hub.database import open_database
from gossipfl.hub.log.reading import DatabaseLog
from gossipfl.hub.settings import load_settings, template
from gossipfl.membership import Roster


class HubProcess:
    """A hub's folder, and its process while it runs."""

    def __init__(
        self,
        fleet: Fleet,
        folder: Path,
        more: dict[str, Any] | None = None,
        keys_of: HubProcess | None = None,
    ) -> None:
        """`keys_of`: another instance of that hub, with the same keys."""
        self.folder = folder
        if keys_of is None:
            enrol_local(fleet.fleet, folder, role="hub")
        else:
            shutil.copytree(keys_of.folder, folder)
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
