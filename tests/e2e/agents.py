"""A fleet of real agents on loopback, for tests: keys, data, config, processes, status."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import gossipfl
from device_agent.local_api import call
from device_agent.setting_template import template
from gossipfl.bundle.archive import read_path, write
from gossipfl.bundle.signing import sign
from gossipfl.errors import UserError
from gossipfl.fleet import documents
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.messages import Privacy, Stop

WAIT_S = 120.0  # far above what anything here takes: several tests may share two cores
LOOK_S = 0.05
STOP_S = 15.0  # a second on an idle machine; the agent's own bound for training is 5


def until(what: str, holds: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """Waits for a condition, with a bound. The value that made it true."""
    end = time.monotonic() + wait_s
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(LOOK_S)
    raise AssertionError(f"not within {wait_s:g} s: {what}")


def free_ports(count: int) -> list[int]:
    """Below the range from which the kernel takes ports for outgoing connections (32768 on)."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def examples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten noisy patterns of 64 pixels, raw as the digits bundles take them (0..16)."""
    centres = np.random.default_rng(99).random((10, 64))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    pixels = centres[labels] + rng.normal(0, 0.35, (count, 64))
    return (pixels.clip(0, 1) * 16).astype(np.float32), labels


class Device:
    """One device's folder, and its process while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gossipfl", "run", "--config", str(self.config), *more],
                stdout=out,
                stderr=out,
                env={**os.environ, "NO_COLOR": "1", "HOME": str(home)},
            )

    def end(self, number: signal.Signals) -> int:
        """Sends the signal: the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty while it does not answer."""
        try:
            return call(self.folder / "agent.sock", "status")
        except UserError:
            return {}

    def wait(self, what: str, holds: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        """Its status as soon as `holds(status)`."""

        def look() -> dict[str, Any]:
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            status = self.status()
            return status if status and holds(status) else {}

        try:
            found: dict[str, Any] = until(what, look)
        except AssertionError as error:
            told = {k: v for k, v in self.status().items() if k not in ("traffic", "policy")}
            text = f"{error}\n{told}\n{self.log.read_text()[-3000:]}"
            raise AssertionError(text) from None
        return found

    def cli(self, verb: str, *more: str) -> tuple[int, str, str]:
        """The command as a person runs it: (exit code, stdout, stderr)."""
        done = subprocess.run(
            [sys.executable, "-m", "gossipfl", *verb.split(), "--config", str(self.config), *more],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        return done.returncode, done.stdout, done.stderr

    def json(self, verb: str, *more: str) -> dict[str, Any]:
        code, out, err = self.cli(verb, "--json", *more)
        assert code == 0, err
        answer = json.loads(out.splitlines()[-1])
        assert (answer["schema"], answer["status"]) == (1, "ok")
        data: dict[str, Any] = answer["data"]
        return data


class Fleet:
    """`count` enrolled devices with data; nothing runs yet."""

    def __init__(
        self,
        root: Path,
        count: int,
        pace: str,
        rounds: int | None = None,
        stop: Stop | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        self.root = root
        self.fleet = make_fleet(root / "fleet", "test")
        self.operator = self.fleet.operator().load()
        shipped = Path(gossipfl.__file__).parent / "bundles" / "digits-mlp.gfl"
        bundle = sign(read_path(shipped), self.operator.signer, self.operator.member_object)
        data = write(bundle)
        (root / "job.gfl").write_bytes(data)
        choices = documents.Choices(
            count, 0, "mean", epochs=2, momentum=0.9, rounds=rounds, stop=stop, privacy=privacy
        )
        policy = documents.next_policy(
            documents.Job.of(bundle, data), choices, None, self.operator.member, int(time.time())
        )
        (root / "policy").write_bytes(documents.policy_object(policy, self.operator))
        self.ports = free_ports(count)
        self.pace = pace
        self.devices = [self._device(number) for number in range(count)]

    def _device(self, number: int) -> Device:
        device = Device(self.root / f"device-{number}")
        enrol_local(self.fleet, device.folder)
        x, y = examples(120, seed=number)
        (device.folder / "data").mkdir()
        np.savez(device.folder / "data" / "a.npz", x=x, y=y)
        self.configure(device, number, {"job.bundle": self.root / "job.gfl"})
        return device

    def configure(self, device: Device, number: int, more: Mapping[str, Any]) -> None:
        others = [f"127.0.0.1:{p}" for n, p in enumerate(self.ports) if n != number]
        settings = {
            "network.hosts": ["127.0.0.1"],
            "network.port": self.ports[number],
            "network.peers": others,
            "discovery.enabled": False,
            "pace.preset": self.pace,
            "job.policy": self.root / "policy",
            "data.source": "data",
            **more,
        }
        device.config.write_text(template({k: v for k, v in settings.items() if v is not None}))

    def close(self) -> None:
        for device in self.devices:
            if device.process is not None and device.process.poll() is None:
                device.process.kill()
                device.process.wait()
