"""An erasure at a whole hub: while it runs, while it is off, and through kill -9 at each step."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from authkit import PASSWORD
from erasekit import forms, shown
from test_service import running, until

from gossipfl.audit.entries import EntryKind, parse_entry
from gossipfl.config import Limits
from gossipfl.fleet.device import load_identity
from gossipfl.fleet.documents import revocation_object
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.hub.auth.users import Users
from gossipfl.hub.database import Database, Unavailable, open_database
from gossipfl.hub.erasing.asking import Stage, ask, stage
from gossipfl.hub.erasing.eraser import Eraser
from gossipfl.hub.rest.access import Role
from gossipfl.hub.settings import HubSettings, load_settings, template
from gossipfl.identity import device_name
from gossipfl.objects import pack_list, unpack_list

Cli = Callable[..., tuple[int, str, str]]
SETTINGS = {
    "api.port": 0,
    "network.hosts": ["127.0.0.1"],
    "discovery.enabled": False,
    "pace.preset": "demo",
}


class Stand:
    """A hub's folder whose node knows one device that was revoked, and one that was not."""

    def __init__(self, folder: Path) -> None:
        fleet = make_fleet(folder / "fleet")
        self.state = folder / "hub"
        enrol_local(fleet, self.state, role="hub")
        enrol_local(fleet, folder / "gone")
        enrol_local(fleet, folder / "here")
        self.hub, self.gone, self.here = (
            load_identity(path) for path in (self.state, folder / "gone", folder / "here")
        )
        self.config = self.state / "hub.toml"
        self.config.write_text(template(SETTINGS))
        self.revocation = revocation_object(
            self.gone.member.device,
            "lost",
            fleet.issuer().official(),
            int(time.time()),
            [self.gone.member.tls or b""],
        )
        asyncio.run(self._seed())

    @property
    def settings(self) -> HubSettings:
        return load_settings([self.config])

    async def _seed(self) -> None:
        database = await open_database(self.settings.dsn)
        members = [identity.member_object for identity in (self.hub, self.gone, self.here)]
        async with database.transaction() as tx:
            for name, items in (("members", members), ("revocations", [self.revocation])):
                await tx.execute(
                    "INSERT INTO node_documents (name, data) VALUES (?, ?)", name, pack_list(items)
                )
        users = Users(database, time.time)
        await users.redeem(await users.add("olga", Role.OPERATOR), PASSWORD)
        await database.close()

    def left(self) -> list[str]:
        """What the folder's files still show of the device that went."""
        gone = self.gone.member
        name = device_name(gone.device).encode()
        signs = {
            "key": forms(gone.key),
            "name": {name},
            "id in text": forms(gone.device) - {gone.device},
        }
        data = b"".join(p.read_bytes() for p in self.state.iterdir() if p.is_file())
        return shown(data, signs)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def token(http: aiohttp.ClientSession) -> None:
    answer = await http.post("/api/v1/auth/token", json={"name": "olga", "password": PASSWORD})
    found = await answer.json()
    http.headers["Authorization"] = f"Bearer {found['access_token']}"


async def erase(http: aiohttp.ClientSession, identity: DeviceIdentity) -> tuple[int, Any]:
    answer = await http.post(f"/api/v1/clients/{identity.member.device.hex()}/erase")
    return answer.status, await answer.json()


async def kinds_about(database: Database, device: bytes) -> list[int]:
    async with database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT kind FROM log_entries WHERE subject = ?", device)
    return sorted(row["kind"] for row in rows)


async def kinds(database: Database) -> list[EntryKind]:
    async with database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT entry FROM log_entries WHERE entry IS NOT NULL ORDER BY id")
    return [parse_entry(row["entry"]).kind for row in rows]


async def documents(database: Database, name: str) -> list[bytes]:
    async with database.transaction(write=False) as tx:
        row = await tx.row("SELECT data FROM node_documents WHERE name = ?", name)
    assert row is not None
    return unpack_list(row["data"], Limits().bundle_bytes)


def test_a_running_hub_erases_and_does_not_take_it_in_again(stand: Stand) -> None:
    async def work() -> None:
        async with running(stand.settings) as (service, hub):
            assert service.address is not None
            device = stand.gone.member.device
            async with asyncio.timeout(20):
                while len(await kinds_about(hub.database, device)) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the answer is in a database
            async with aiohttp.ClientSession(service.address.url) as http:
                assert (await erase(http, stand.gone))[0] == 401
                await token(http)
                assert (await erase(http, stand.here))[1]["code"] == "GF852"
                status, found = await erase(http, stand.gone)
                assert (status, found) == (200, {"stage": "done"})
                assert (await erase(http, stand.gone))[1]["code"] == "GF851"
                nobody = await http.post(f"/api/v1/clients/{bytes(16).hex()}/erase")
                assert nobody.status == 404
            await until(lambda: hub.leader.leads)
            recorder = hub.leader.recorder
            assert recorder is not None
            await recorder.look()
            assert await kinds_about(hub.database, device) == []
            assert EntryKind.ERASURE in await kinds(hub.database)
            async with hub.database.transaction(write=False) as tx:
                row = await tx.row("SELECT 1 FROM fleet_devices WHERE device = ?", device)
            assert row is None
            members = await documents(hub.database, "members")
            assert stand.here.member_object in members
            assert stand.gone.member_object not in members
            assert await documents(hub.database, "revocations") == [stand.revocation]

    asyncio.run(work())
    assert stand.left() == []


def test_an_erasure_that_fails_keeps_no_hub_from_leading(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tries = Eraser.erase, []

    async def failing(self: Eraser) -> int:
        tries.append(self)
        if len(tries) == 1:
            raise Unavailable("cut off after 30 s")
        return await whole(self)

    monkeypatch.setattr(Eraser, "erase", failing)
    monkeypatch.setattr("gossipfl.hub.leader.ERASE_AGAIN_S", 0.3)
    device = stand.gone.member.device

    async def work() -> None:
        database = await open_database(stand.settings.dsn)
        await ask(database, device, stand.hub.root_key, "olga")
        async with running(stand.settings) as (_, hub):
            await until(lambda: hub.leader.leads)
            assert len(tries) == 1
            async with asyncio.timeout(20):
                while await stage(database, device) is not Stage.DONE:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # the answer is in a database
        await database.close()

    asyncio.run(work())
    assert stand.left() == []


def test_the_command_does_it_itself_or_has_it_done(stand: Stand, gossipfl: Cli) -> None:
    words = ("hub", "erase", device_name(stand.gone.member.device), "--config", str(stand.config))

    async def beside_a_running_hub() -> tuple[int, str, str]:
        async with running(stand.settings) as (_, hub):
            await until(lambda: hub.leader.leads)
            done: tuple[int, str, str] = await asyncio.to_thread(gossipfl, *words, "--json")
            assert hub.leader.station is not None
            return done

    code, out, err = asyncio.run(beside_a_running_hub())
    assert (code, json.loads(out)["data"]) == (0, {"stage": "done"}), err
    assert stand.left() == []
    code, _, err = gossipfl(*words)
    assert code == 1
    assert "GF851" in err


def test_the_command_works_while_no_hub_runs(stand: Stand, gossipfl: Cli) -> None:
    for name, message in (("nonsense", "GF850"), (device_name(stand.here.member.device), "GF852")):
        code, _, err = gossipfl("hub", "erase", name, "--config", str(stand.config))
        assert code == 1
        assert message in err
    code, out, err = gossipfl(
        "hub", "erase", stand.gone.member.device.hex(), "--config", str(stand.config)
    )
    assert code == 0, err
    assert "erased" in out
    assert stand.left() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from gossipfl.hub.database.sqlite import SqliteDatabase
from gossipfl.hub.erasing import eraser
from gossipfl.hub.log.writer import LogWriter
from gossipfl.cli.main import run

async def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)

async def after(method, self, *args):
    await method(self, *args)
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "rows deleted":
    eraser.stage = die
elif where == "before the commit":
    LogWriter.integrate_in = die
elif where == "committed":
    eraser.Eraser.compact = die
else:
    whole = SqliteDatabase.compact
    SqliteDatabase.compact = lambda self, tables: after(whole, self, tables)
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "where", ["rows deleted", "before the commit", "committed", "files written anew"]
)
def test_kill_9_at_each_step_and_again_goes_through(
    stand: Stand, gossipfl: Cli, root: Path, where: str
) -> None:
    words = ("hub", "erase", stand.gone.member.device.hex(), "--config", str(stand.config))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, where, *words],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert "GF" not in gossipfl("audit", "show", str(stand.state / "hub.db"))[2]
    code, _, err = gossipfl(*words)
    assert code == 0, err
    assert stand.left() == []
    code, out, _ = gossipfl("audit", "show", str(stand.state / "hub.db"), "--json")
    said = [entry["kind"] for entry in json.loads(out)["data"]["entries"]]
    assert said.count("decision") == 1
