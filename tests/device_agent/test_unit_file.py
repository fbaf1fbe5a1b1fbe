"""The systemd unit is one that systemd accepts, and says what the agent needs."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "gossipfl-agent.service"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_accepts_the_unit() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "gossipfl-agent" not in done.stderr, done.stderr


def test_it_notifies_keeps_its_state_and_comes_back() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["StateDirectory"] == "gossipfl"
    assert service["Restart"] == "always"
    assert int(service["WatchdogSec"]) >= 20  # the loop turns at least every five seconds
    assert "ORT_DISABLE_TELEMETRY=1" in UNIT.read_text()
    assert "gossipfl run" in service["ExecStart"]
