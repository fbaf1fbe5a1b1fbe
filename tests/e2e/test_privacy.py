"""Three real agents under a budget: noise, a ledger that kill -9 does not shorten, and an end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from agents import Fleet

from gossipfl.errors import Exit
from gossipfl.messages import Privacy
from gossipfl.privacy.agreed import affordable

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
