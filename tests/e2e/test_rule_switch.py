"""The operator switches the rule with one command while real agents learn."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from agents import WAIT_S, Device, Fleet

from device_agent.store import DeviceStore
from gossipfl.config import Limits
from gossipfl.messages import Head, Receipt
from gossipfl.wire import decode, open_envelope

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RULE = "nnm+median"


def receipts(device: Device) -> list[Receipt]:
    """What a device that does not run has merged, the oldest first."""
    store, limits = DeviceStore(device.folder), Limits()
    envelope = store.load().head
    assert envelope is not None
    head = decode(open_envelope(envelope, "head", limits.head_bytes).payload, Head)
    assert head.receipts is not None
    found, name = [], head.receipts.digest
    while name is not None:
        data = store.get(name)
        assert data is not None
        found.append(decode(open_envelope(data, "receipt", limits.entry_bytes).payload, Receipt))
        name = found[-1].prev
    return found[::-1]


def issue(fleet: Fleet, *more: str) -> subprocess.CompletedProcess[str]:
    """`gossipfl policy issue`, after the policy that the fleet runs on, to the first device."""
    command = [
        "policy",
        "issue",
        "--operator",
        "fleet",
        "--bundle",
        "job.gfl",
        "--n",
        "3",
        "--prev",
        "policy",
        "-o",
        "next",
    ]
    command += ["--to", str(fleet.devices[0].folder / "agent.sock"), *more]
    return subprocess.run(
        [sys.executable, "-m", "gossipfl", *command],
        cwd=fleet.root,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def test_a_new_rule_takes_over_in_all_agents_without_a_restart(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, 3, "none")
    try:
        for device in fleet.devices:
            device.start()
        for device in fleet.devices:
            device.wait("some rounds", lambda s: s["merges"] >= 3)
        refused = issue(fleet, "--rule", "krum", "--attackers", "1")
        assert refused.returncode != 0
        assert "the rule could never merge: krum: m = 2 received models" in refused.stderr
        assert "--attackers 0 or fewer" in refused.stderr
        assert {d.status()["policy"]["rule"] for d in fleet.devices} == {"mean"}

        done = issue(fleet, "--rule", RULE, "--attackers", "0")
        assert done.returncode == 0, done.stderr
        for device in fleet.devices:
            heard = device.wait("the new rule", lambda s: s["policy"]["rule"] == RULE)
            device.wait("rounds by it", lambda s, h=heard: s["merges"] >= h["merges"] + 3)
        assert all(d.process is not None and d.process.poll() is None for d in fleet.devices)
        for device in fleet.devices:
            device.end(signal.SIGTERM)
        for device in fleet.devices:
            chain = [entry for entry in receipts(device) if entry.own is not None]
            rules = [entry.rule for entry in chain]
            assert set(rules) == {"mean", RULE}
            assert rules == sorted(rules), "never back to the old one"
            assert len({entry.own for entry in chain}) == len(chain), "each merge of a new update"
            assert "merge failed" not in device.log.read_text()
            assert {entry.lineage.run for entry in chain} == {chain[0].lineage.run}
    finally:
        fleet.close()
