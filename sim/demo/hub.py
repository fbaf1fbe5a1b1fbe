"""The demo's hub: one more process beside the devices, and the check of the log that it kept."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.exports import Exporter
from gossipfl.audit.notes import log_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.verification import verify_export
from gossipfl.errors import UserError
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.local import enrol_local
from gossipfl.fleet.stored import read_identity
from gossipfl.hub.database import DatabaseError, open_database
from gossipfl.hub.log.reading import DatabaseLog
from gossipfl.hub.settings import load_settings, template
from gossipfl.logged import Contents
from sim.demo.places import Place
from sim.demo.processes import Child, Children

WAIT_S = 20.0  # for the last receipts: three checkpoint intervals of the demo's pace
LOOK_S = 0.5
EXPORT = "audit-log.tar"
HOLDOUT = "digits.npz"


@dataclass(frozen=True, slots=True)
class HubPlace:
    """Where the hub lives."""

    folder: Path
    config: Path
    url: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of the log: written out, and checked as an auditor would."""

    entries: int = 0
    receipts: int = 0
    verified: bool = False
    problem: str = ""
    export: str = ""

    def data(self) -> dict[str, Any]:
        return asdict(self)

    def words(self) -> str:
        if self.verified:
            return f"audit log: {self.entries} entries, verified"
        return f"audit log: NOT verified: {self.problem}"


def settle_hub(folder: Path, places: Sequence[Place], ports: tuple[int, int]) -> HubPlace:
    """Keys and config of a hub for the fleet in `folder`; `ports`: for devices, for people.

    It gets the digits that nobody trains on: data that are public may judge what devices publish.
    """
    home = folder / "hub"
    enrol_local(FleetFolder(folder / "fleet"), home, role="hub")
    shutil.copyfile(places[0].folder / "data" / "test" / HOLDOUT, home / HOLDOUT)
    peers, api = ports
    settings = {
        "api.port": api,
        "api.guests": True,  # it listens on loopback alone, and there is nothing to hide
        "star.holdout": HOLDOUT,
        "network.hosts": ["127.0.0.1"],
        "network.port": peers,
        "network.peers": [f"127.0.0.1:{place.port}" for place in places],
        "discovery.enabled": False,  # it is told where everybody is
        "pace.preset": "demo",
    }
    config = home / "hub.toml"
    config.write_text(template(settings))
    return HubPlace(home, config, f"http://127.0.0.1:{api}")


def answers(hub: HubPlace) -> bool:
    """Whether somebody listens where its page is."""
    address = urlsplit(hub.url)
    try:
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=0.2):
            return True
    except OSError:
        return False


def launch_hub(children: Children, hub: HubPlace) -> Child:
    """The product's own hub."""
    arguments = ["-m", "gossipfl", "hub", "run", "--config", str(hub.config)]
    return children.start("hub", arguments, hub.folder / "hub.log", {"NO_COLOR": "1"})


def audit(hub: HubPlace, child: Child, receipts: int) -> Audit:
    """Export the log and verify the export, once it holds so many receipts or time is up.

    A hub that has ended left its log behind: it is checked as it is.
    """
    until = time.monotonic() + WAIT_S
    while True:
        try:
            found = asyncio.run(_audit(hub))
        except (AuditRefused, DatabaseError, UserError) as error:
            found = Audit(problem=str(error))
        if found.receipts >= receipts or not child.is_alive or time.monotonic() > until:
            return found
        time.sleep(LOOK_S)


async def _audit(hub: HubPlace) -> Audit:
    identity = read_identity(hub.folder)
    target = hub.folder.parent / EXPORT
    database = await open_database(load_settings([hub.config]).dsn)
    try:
        exporter = Exporter(DatabaseLog(database), identity.member.fleet)
        parts = [chunk async for chunk in exporter.chunks()]
    finally:
        await database.close()
    target.write_bytes(b"".join(parts))
    with target.open("rb") as file:
        verdict = verify_export(
            file, log_key(identity.signer.key_id), (), lambda fleet: Contents(fleet).check
        )
    return Audit(
        entries=verdict.entries,
        receipts=verdict.kinds.get(EntryKind.RECEIPT.word, 0),
        verified=verdict.valid,
        problem="" if verdict.problem is None else str(verdict.problem),
        export=str(target),
    )
