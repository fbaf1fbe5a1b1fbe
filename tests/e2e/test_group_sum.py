"""Eight real agents sum in groups: they learn, one dies by kill -9, nobody's own model leaves."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from agents import Fleet

from gossipfl.fleet.stored import load_identity
from gossipfl.identity import device_name
from gossipfl.objects import digest

pytest.importorskip("Crypto")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRAIN_S, STEP_S = 5, 3  # far above what it takes, on two cores that others use too


def summed(times: int) -> Any:
    def holds(status: Mapping[str, Any]) -> bool:
        return bool(status["sums"] and status["sums"]["sums"] >= times)

    return holds


def issue(fleet: Fleet, *more: str) -> str:
    """A policy with group sums by the command, in the place of the fleet's first."""
    names = fleet.root / "names"
    members = [device_name(load_identity(d.folder).signer.device) for d in fleet.devices]
    names.write_text("# who sums\n" + "\n".join(members))
    file = fleet.root / "group-sum.gfp"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gossipfl", "policy", "issue", "--operator"),
            *(fleet.root / "fleet", "--bundle", fleet.root / "job.gfl", "--attackers", "0"),
            *("--n", str(len(fleet.devices)), "--privacy", "group-sum", "--group-devices", names),
            *("--group-size", "4", "--train-s", str(TRAIN_S), "--step-s", str(STEP_S)),
            *("--attempts", "1", "--epochs", "20", "--rule", "nna", "-o", file, *more),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file.replace(fleet.root / "policy")
    return done.stdout


def test_agents_sum_learn_and_survive_a_kill(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 8, "demo")
    said = issue(fleet)
    assert "8 devices in 2 groups of about 4" in said
    assert "mind: group sums hide attackers too" in said
    killed, *rest = fleet.devices
    try:
        for device in fleet.devices:
            device.start()
        for device in fleet.devices:
            device.wait("a first sum", summed(1))
        killed.end(signal.SIGKILL)
        before = {device.folder: device.status()["sums"]["sums"] for device in rest}
        for device in rest:
            device.wait("a sum without the one", summed(before[device.folder] + 1))
        killed.start()
        killed.wait("a sum after its restart", summed(1))
        for device in fleet.devices:
            status = device.wait("a merge", lambda s: s["merges"] >= 1)
            assert status["evidence"] == 0
            assert status["together_accuracy"] > 0.8
        _, out, _ = killed.cli("status")
        assert "group-sum, 2 groups of about 4" in out
    finally:
        fleet.close()
    shared = [updates_of(device.folder) for device in fleet.devices]
    assert all(shared)
    for number, names in enumerate(shared):
        others = set().union(*(s for n, s in enumerate(shared) if n != number))
        assert names <= others, "an update that is one device's alone is no mean of a group's"


def updates_of(state: Path) -> set[bytes]:
    """The updates that it still stores to serve; a masked vector is none."""
    found = set()
    with sqlite3.connect(f"file:{state}/store.db?mode=ro", uri=True) as database:
        for (data,) in database.execute("SELECT data FROM objects WHERE data IS NOT NULL"):
            if data[:4] == b"GFU1":
                found.add(digest(data))
    for path in (state / "objects").rglob("*"):
        if path.is_file() and path.read_bytes()[:4] == b"GFU1":
            found.add(digest(path.read_bytes()))
    return found
