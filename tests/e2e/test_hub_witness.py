"""Real devices as witnesses of a real hub: its log is cosigned, and a rewritten one is its end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import Fleet, until
from hubs import HubProcess

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.fleet.stored import read_identity
from gossipfl.hub.database import Database, open_database
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.settings import load_settings

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DEVICES = 3


@pytest.fixture
def fleet_and_hub(tmp_path: Path) -> Iterator[tuple[Fleet, HubProcess]]:
    fleet = Fleet(tmp_path, DEVICES, "demo")
    hub = HubProcess(fleet, tmp_path / "hub")
    port = load_settings([hub.config]).network.port
    for number, device in enumerate(fleet.devices):
        others = [p for n, p in enumerate(fleet.ports) if n != number]
        peers = [f"127.0.0.1:{p}" for p in (*others, port)]
        fleet.configure(
            device, number, {"job.bundle": fleet.root / "job.gfl", "network.peers": peers}
        )
    yield fleet, hub
    hub.close()
    fleet.close()


def gossipfl(*argv: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "gossipfl", "audit", *argv], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def dsn(hub: HubProcess) -> str:
    return load_settings([hub.config]).dsn


async def cosigners(hub: HubProcess) -> int:
    """The most that have cosigned one checkpoint."""
    database = await open_database(dsn(hub))
    async with database.transaction(write=False) as transaction:
        rows = await transaction.rows("SELECT number FROM log_cosignatures")
    await database.close()
    return max(Counter(row["number"] for row in rows).values(), default=0)


def test_devices_cosign_and_a_rewritten_log_shuts_the_hub_out(
    fleet_and_hub: tuple[Fleet, HubProcess], tmp_path: Path
) -> None:
    fleet, hub = fleet_and_hub
    hub.start()
    for device in fleet.devices:
        device.start()
    until("a checkpoint", lambda: hub.health().get("entries", 0) > 5)
    # An auditor with the keys of all devices finds an export that each of them has cosigned.
    (tmp_path / "hub.pub").write_text(str(log_key(read_identity(hub.folder).signer.key_id)))
    named: list[str] = []
    for index, device in enumerate(fleet.devices):
        code, out = gossipfl("key", "--state", str(device.folder), "--json")
        assert code == 0, out
        path = tmp_path / f"{index}.pub"
        path.write_text(json.loads(out)["data"]["witness"])
        named += ["--witness", str(path)]
    tar = str(tmp_path / "export.tar")

    until("all devices have cosigned", lambda: asyncio.run(cosigners(hub)) == DEVICES)
    assert gossipfl("export", dsn(hub), "-o", tar)[0] == 0
    code, out = gossipfl("verify", tar, "--hub-key", str(tmp_path / "hub.pub"), *named)
    assert code == 0, out
    assert out.count("cosigned by") == DEVICES
    for device in fleet.devices:
        assert device.status()["evidence"] == 0
    # The hub's owner rewrites history: one entry says something else, all is signed anew.
    hub.close()
    asyncio.run(rewrite(hub))
    hub.start()
    for device in fleet.devices:
        device.wait("the proof", lambda s: s["evidence"] == 1)
    for device in fleet.devices:
        assert device.process is not None
        assert device.process.poll() is None


async def rewrite(hub: HubProcess) -> None:
    """The same entries but one, with right commitments, tiles, chain and signatures."""
    settings = load_settings([hub.config])
    signer = read_identity(hub.folder).signer
    database = await open_database(settings.dsn)
    log = HubLog(database, log_key(signer.key_id))
    sizes = await _sizes(database)
    async with database.transaction(write=False) as transaction:
        rows = await transaction.rows(
            "SELECT kind, time, subject, data FROM log_entries WHERE position IS NOT NULL "
            "ORDER BY position"
        )
    async with database.transaction() as transaction:
        for table in ("cosignatures", "checkpoints", "tiles", "objects", "salts", "entries"):
            await transaction.execute(f"DELETE FROM log_{table}")
    writer = LogWriter(database, log, signer)
    await writer.start()
    first = 0
    for size in sizes:
        drafts = [
            Draft(EntryKind(row["kind"]), row["subject"], row["data"], row["time"])
            for row in rows[first:size]
        ]
        if first == 0:
            login = b'{"outcome":"in","user":"nobody who was ever here"}'
            drafts[-1] = Draft(EntryKind.LOGIN, drafts[-1].subject, login, drafts[-1].time)
        await log.append(drafts)
        await writer.integrate()
        first = size
    await database.close()


async def _sizes(database: Database) -> list[int]:
    async with database.transaction(write=False) as transaction:
        found = await transaction.rows("SELECT size FROM log_checkpoints ORDER BY number")
    return [row["size"] for row in found]
