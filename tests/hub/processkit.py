"""A real hub process on loopback with TLS, a fleet of its own, and a first operator."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from authkit import PASSWORD
from starkit import Operator, example

from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.hub.settings import template
from sim.bench.hub_tls import self_signed

WAIT_S = 60.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class HubProcess:
    """A hub's folder, and its process while it runs."""

    def __init__(self, folder: Path, more: dict[str, Any] | None = None) -> None:
        self.fleet = make_fleet(folder / "fleet")
        self.state = folder / "hub"
        enrol_local(self.fleet, self.state, role="hub")
        self.certificate, key = self_signed(folder)
        self.port = free_port()
        self.config = self.state / "hub.toml"
        settings = {
            "api.port": self.port,
            "api.certificate": str(self.certificate),
            "api.key": str(key),
            "network.hosts": ["127.0.0.1"],
            "network.port": free_port(),
            "discovery.enabled": False,
            "star.round_s": 5,
            **(more or {}),
        }
        self.config.write_text(template(settings))
        self.operator = Operator(self.fleet.operator().load())
        self.log = folder / "hub.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def gossipfl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command, with --json."""
        return subprocess.run(
            [sys.executable, "-m", "gossipfl", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def user(self, name: str, *more: str) -> Any:
        done = self.gossipfl("user", *more, name, "--config", str(self.config))
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout)["data"]

    def start(self) -> None:
        """Until it answers."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gossipfl", "hub", "run", "--config", str(self.config)],
                stdout=out,
                stderr=out,
                env={**os.environ, "NO_COLOR": "1"},
            )
        hub, end = self.hub(), time.monotonic() + WAIT_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                hub.json("GET", "/health")
            except (OSError, example().Refused):
                time.sleep(0.05)  # another process: nothing to wait on
                continue
            return
        raise AssertionError(self.log.read_text()[-3000:])

    def hub(self, token: str = "") -> Any:
        """An HTTP client of it."""
        return example().Hub(self.url, str(self.certificate), token)

    def login(self, name: str) -> Any:
        """An HTTP client with a user's token."""
        hub = self.hub()
        found = hub.json("POST", "/api/v1/auth/token", {"name": name, "password": PASSWORD})
        hub.token = found["access_token"]
        return hub

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
