"""The demo as a newcomer starts it: real agents, a liar, a summary, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.demo.places import PORT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RUN_S = 400  # it takes about 80 s on two idle cores; the tests share theirs


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gossipfl", "demo", "--folder", str(folder / "demo"), *options],
        stdout=subprocess.PIPE,
        # A shell that runs us in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def agents_below(folder: Path) -> list[int]:
    """Processes whose command line names a config below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if any(str(folder) in word and word.endswith(".toml") for word in words):
                found.append(int(entry.name))
    return found


def test_six_devices_learn_together_and_the_liar_is_caught(tmp_path: Path) -> None:
    demo = start(tmp_path, "--once", "--json", "--no-browser")
    out, err = demo.communicate(timeout=RUN_S)
    assert demo.returncode == 0, err[-3000:]
    answer = json.loads(out.splitlines()[-1])
    assert (answer["schema"], answer["status"]) == (1, "ok")
    data = answer["data"]
    together, alone = data["together_accuracy"], data["alone_accuracy"]
    assert together["worst"] >= 0.94
    assert together["worst"] >= alone["mean"] + 0.15
    assert data["undefended_accuracy"]["mean"] < together["worst"] - 0.2
    assert data["liar_quarantined"] is True
    assert len(data["devices"]) == 7
    for device in data["devices"]:
        assert device["quarantined"] is device["liar"]
        if not device["liar"]:
            assert device["rounds"] == 20
            assert device["bytes_sent"] > 0
            assert device["rss_mb"] > 0
    assert data["devices"][-1]["reason"]
    assert data["audit"]["verified"] is True
    assert data["audit"]["receipts"] >= 6 * 20
    assert agents_below(tmp_path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(("attack", "why"), [("equivocation", "prove"), ("nan", "not finite")])
def test_liars_that_need_more_than_a_trainer_are_real_agents_too(
    tmp_path: Path, attack: str, why: str
) -> None:
    """One shows two chains of heads, one publishes what its own node would refuse."""
    words = ("--attack", attack, "--devices", "5", "--rounds", "6")
    demo = start(tmp_path, "--once", "--json", *words)
    out, err = demo.communicate(timeout=RUN_S)
    data = json.loads(out.splitlines()[-1])["data"]
    *honest, liar = data["devices"]
    assert liar["quarantined_by"] == 4, err[-3000:]
    assert why in liar["reason"]
    assert not any(device["quarantined"] for device in honest)
    assert data["together_accuracy"]["worst"] > data["alone_accuracy"]["mean"]
    assert agents_below(tmp_path) == []


def test_a_fleet_whose_hub_is_killed_half_way_finishes_all_the_same(tmp_path: Path) -> None:
    demo = start(
        tmp_path, "--once", "--json", "--devices", "4", "--attackers", "0", "--rounds", "8"
    )
    database = tmp_path / "demo" / "hub" / "hub.db"
    until = time.monotonic() + 180
    while not logged(database):
        assert demo.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    (hub,) = [pid for pid in agents_below(tmp_path) if b"hub.toml" in command_of(pid)]
    os.kill(hub, signal.SIGKILL)
    out, err = demo.communicate(timeout=RUN_S)
    assert demo.returncode == 0, err[-3000:]
    found = json.loads(out.splitlines()[-1])["data"]
    assert found["converged"] is True
    assert found["audit"]["verified"] is True
    assert 0 < found["audit"]["receipts"] < 4 * 8
    assert agents_below(tmp_path) == []


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def logged(database: Path) -> int:
    """Receipts that a checkpoint covers; 0 while there is no database."""
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as reader:
        try:
            (count,) = reader.execute(
                "SELECT COUNT(*) FROM log_entries WHERE kind = 2 AND position IS NOT NULL"
            ).fetchone()
        except sqlite3.OperationalError:  # its tables are being made
            return 0
    return int(count)


def test_ctrl_c_stops_every_agent_and_a_busy_port_is_said_aloud(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", PORT)) if _is_free(PORT) else socket.socket():
        demo = start(tmp_path, "--devices", "4", "--attackers", "1")
        assert demo.stderr is not None
        lines = []
        until = time.monotonic() + 180
        while "processes ready" not in "".join(lines[-1:]):
            assert time.monotonic() < until
            lines.append(demo.stderr.readline())
        assert any(f"port {PORT}" in line for line in lines)
        assert len(agents_below(tmp_path)) == 4 + 1  # and the hub
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=90)
    assert demo.returncode == 130
    assert "Traceback" not in out + err
    assert agents_below(tmp_path) == []


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
