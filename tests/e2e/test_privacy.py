"""Three real agents under a budget: noise, a ledger that kill -9 does not shorten, and an end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agents import Device, Fleet

from gossipfl.errors import Exit
from gossipfl.fleet import client
from gossipfl.fleet.service import Service
from gossipfl.messages import Privacy
from gossipfl.privacy.agreed import affordable
from gossipfl.privacy.ledger import Refusal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RECORD = Privacy(
    mode="local", unit="record", epsilon=4.0, clip=1.0, z=1.5, sample_rate=0.2, steps=5, lot=24
)


def test_agents_spend_a_budget_and_listen(tmp_path: Path) -> None:
    most = affordable(RECORD)
    assert 4 <= most <= 40
    fleet = Fleet(tmp_path, 3, "none", privacy=RECORD)
    blind, killed, _ = fleet.devices
    (blind.folder / "data" / "a.npz").write_bytes(b"no examples at all")
    try:
        for device in fleet.devices:
            device.start()
        before = killed.wait("some releases", lambda s: s["releases"] >= 2)["releases"]
        killed.end(signal.SIGKILL)
        killed.start()
        assert killed.wait("an answer", lambda s: True)["releases"] >= before
        for device in fleet.devices:
            status = device.wait("the end of its budget", lambda s: s["listen_only"])
            assert status["listen_only"] == "the privacy budget is spent"
            assert status["releases"] == most, "who has no data publishes as often as the others"
        code, out, _ = killed.cli("privacy status")
        assert code == Exit.BUDGET
        assert f"releases     {most} of {most}" in out
        assert "noise goes out" in blind.log.read_text()
    finally:
        fleet.close()


PLENTY = Privacy(mode="local", unit="device", epsilon=500.0, clip=0.001, z=100.0)


async def joined_again(fleet: Fleet, device: Device) -> None:
    """`gossipfl join LINE --replace`, with a real issuer on the network."""
    service = Service(fleet.fleet.issuer(), time.time)
    address = await service.start("127.0.0.1", 0)
    try:
        line = service.desk.invite(address, int(time.time())).line()
        call = partial(client.join, line, device.folder, True)
        await asyncio.get_running_loop().run_in_executor(None, call)
    finally:
        await service.close()


def test_an_old_disk_joined_again_gets_no_budget_back_and_the_right_one_goes_on(
    tmp_path: Path,
) -> None:
    fleet = Fleet(tmp_path, 4, "none", privacy=PLENTY)
    old, right, *_ = fleet.devices
    try:
        for device in fleet.devices:
            device.start()
        old.wait("some releases", lambda s: s["releases"] >= 2)
        old.end(signal.SIGTERM)
        backup = tmp_path / "backup"
        shutil.copytree(old.folder, backup)
        old.start()
        seen = old.wait("more of them", lambda s: s["releases"] >= 10)

        def knows(status: Mapping[str, Any]) -> bool:
            rows = [p for p in status["peers"] if p["device"] == seen["device"]]
            return any(row["seq"] >= seen["seq"] for row in rows)

        for device in fleet.devices[1:]:
            device.wait("its head at the others", knows)
        old.end(signal.SIGKILL)
        shutil.rmtree(old.folder)
        shutil.copytree(backup, old.folder)
        asyncio.run(joined_again(fleet, old))
        old.start()
        said = old.wait("what peers say", lambda s: s["listen_only"] == Refusal.UNKNOWN.value)
        assert 2 <= said["releases"] < 10, "what the old disk had, and nothing more"
        old.wait("models of the others", lambda s: s["merges"] >= 3)
        assert old.status()["releases"] == said["releases"]

        before = right.wait("some releases", lambda s: s["releases"] >= 2)["releases"]
        right.end(signal.SIGTERM)
        asyncio.run(joined_again(fleet, right))
        right.start()
        # What was spent under the old key is still spent; more of it once peers have confirmed it.
        right.wait("the old key's ledger", lambda s: s["releases"] >= before)
        after = right.status()["releases"]
        right.wait("peers that confirm it", lambda s: s["releases"] > after)
    finally:
        fleet.close()
