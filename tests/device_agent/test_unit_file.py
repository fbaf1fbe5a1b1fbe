"""The systemd units are ones that systemd accepts, shut in, and say what agent and hub need."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from gossipfl.net.driver import BEAT_S

UNITS = [
    Path(__file__).parents[2] / "systemd" / f"gossipfl-{which}.service"
    for which in ("agent", "hub")
]
ANALYZE = shutil.which("systemd-analyze")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if ANALYZE is None:
        pytest.skip("systemd is not installed here")
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path) -> None:
    done = analyze("verify", str(unit))
    assert done.returncode == 0, done.stderr
    assert unit.stem not in done.stderr, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_is_shut_in_to_an_exposure_of_at_most_one_and_a_half(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=15", str(unit))
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_notifies_keeps_its_state_and_comes_back(unit: Path) -> None:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(unit)
    service = read["Service"]
    assert service["Type"] == "notify"
    assert service["StateDirectory"] in ("gossipfl", "gossipfl-hub")
    assert service["DynamicUser"] == "yes"
    assert service["Restart"] == "always"
    # Fed when a quarter of it has passed and the loop turns: two beats and that must fit in.
    watchdog_s = int(service["WatchdogSec"])
    assert watchdog_s == 15
    assert watchdog_s / 4 + BEAT_S < watchdog_s / 1.5
    assert "ORT_DISABLE_TELEMETRY=1" in unit.read_text()
    assert "gossipfl" in service["ExecStart"]
