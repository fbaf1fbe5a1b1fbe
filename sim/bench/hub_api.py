"""The hub's API under load: a hub process with TLS on loopback, and what loads it in another one.

Loads come from `sim.bench.hub_load`. On a machine that others use, seconds of the clock say what
the machine had to give: so processor seconds of the hub, and the load, stand beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from gossipfl.bundle.archive import read
from gossipfl.bundles import MNIST_CNN, read_bytes
from gossipfl.fleet import documents
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.hub.settings import template
from gossipfl.hub.star.values import Details, RoundState
from sim.bench.hub_tls import self_signed
from sim.bench.report import progress
from sim.demo.places import free_ports

CODEC = "bf16"  # 20,338 parameters in 40.7 kB
RULE = "mean"  # what is measured is the API; rules have a bench of their own
NAME, PASSWORD = "ann", "a sentence of seven words is long"
START_S, END_S = 60.0, 120.0
SLOW = 500
USERS = 5  # who ask: one of them may ask 20 times a second
ASKERS, ASKED_PER_S, CALM_S = 20, 60, 15.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=1_000, metavar="N", help="registered")
    parser.add_argument("--selected", type=int, default=500, metavar="N", help="for a round")
    parser.add_argument("--senders", type=int, default=200, metavar="N", help="at one instant")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of updates")
    parser.add_argument("--slow", type=int, default=SLOW, metavar="N", help="slow connections")


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures, on SQLite in `folder`."""
    folder.mkdir(parents=True)
    bench = _Bench(folder)
    figures: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 1)}
    with bench.running():
        bench.log_in()
        figures |= bench.updates(args)
    figures |= bench.lost(figures.pop("acknowledged_file"))
    with bench.running():
        bench.log_in()
        figures |= bench.slow(args.slow)
    figures |= {"processors": os.cpu_count(), "load_after": round(os.getloadavg()[0], 1)}
    return figures


class _Load:
    """One process of `hub_load`. What it says comes line by line."""

    def __init__(self, folder: Path, role: str, given: dict[str, Any]) -> None:
        path = folder / f"{role}.json"
        path.write_text(json.dumps(given))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sim.bench.hub_load", role, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, name: str) -> dict[str, Any]:
        """The next line that says `name`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found: dict[str, Any] = json.loads(line)
            if name in found:
                return found
            progress(line.strip())
        raise RuntimeError(f"the load ended and never said {name!r}")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


class _Bench:
    """One hub with its fleet, bundle and operator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = make_fleet(folder / "fleet")
        self.state = folder / "hub"
        enrol_local(self.fleet, self.state, role="hub")
        self.certificate, key = self_signed(folder)
        self.port, node_port = free_ports(2, progress)
        self.config = self.state / "hub.toml"
        settings = {
            "api.port": self.port,
            "api.certificate": str(self.certificate),
            "api.key": str(key),
            "network.hosts": ["127.0.0.1"],
            "network.port": node_port,
            "discovery.enabled": False,
        }
        self.config.write_text(template(settings))
        password = folder / "password"
        password.touch(0o600)
        password.write_text(PASSWORD)
        command = ["user", "add", NAME, "--role", "operator", "--password-file", str(password)]
        subprocess.run(
            [sys.executable, "-m", "gossipfl", *command, "--config", str(self.config)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with (self.folder / "hub.log").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gossipfl", "hub", "run", "--config", str(self.config)],
                stdout=out,
                stderr=out,
                env={**os.environ, "NO_COLOR": "1"},
            )
        try:
            ends = time.perf_counter() + START_S
            while not self._is_up():
                if time.perf_counter() > ends or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "hub.log").read_text()[-2_000:])
                time.sleep(0.05)
            yield
        finally:
            self.kill()

    def kill(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _is_up(self) -> bool:
        try:
            self._ask("GET", "/health")
        except OSError:
            return False
        return True

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> Any:
        headers = {"Content-Type": kind} if body is not None else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.loads(answer.read() or b"null")

    def log_in(self) -> None:
        body = json.dumps({"name": NAME, "password": PASSWORD}).encode()
        self._token = ""
        self._token = self._ask("POST", "/api/v1/auth/token", body)["access_token"]

    def start_training(self, clients: int, selected: int) -> None:
        """Give the hub a bundle and a policy: the first round opens."""
        octets, official = "application/octet-stream", self.fleet.operator().load()
        bundle = read_bytes(MNIST_CNN)
        self._ask("POST", "/api/v1/training/bundle", bundle, octets)
        job = documents.Job.of(read(bundle), bundle)
        choices = documents.Choices(
            n=clients + 1, attackers=0, rule=RULE, codec=CODEC, sample=selected
        )
        made = documents.next_policy(job, choices, None, official.member, int(time.time()))
        policy = documents.policy_object(made, official)
        self._ask("POST", "/api/v1/aggregation/strategy", policy, octets)

    def _user(self, name: str) -> str:
        """One more person's token."""
        added = json.dumps({"name": name, "role": "auditor"}).encode()
        used = {"code": self._ask("POST", "/api/v1/users", added)["code"], "password": PASSWORD}
        found = self._ask("POST", "/api/v1/auth/link", json.dumps(used).encode())
        return str(found["access_token"])

    # --- figures -------------------------------------------------------------------------------

    def updates(self, args: argparse.Namespace) -> dict[str, Any]:
        """Registered, then updates for so long; the hub is killed while they go on."""
        assert self._process is not None
        path = self.folder / "acknowledged.json"
        before = _cpu_s(self._process.pid)
        invited = json.dumps({"uses": args.clients}).encode()
        code = self._ask("POST", "/api/v1/clients/invitations", invited)["code"]
        load = _Load(
            self.folder,
            "submit",
            {
                "url": self.url,
                "ca": str(self.certificate),
                "code": code,
                "fleet": self._ask("GET", "/api/v1/clients/register")["fleet"],
                "clients": args.clients,
                "senders": args.senders,
                "seconds": args.seconds,
                "acknowledged": str(path),
            },
        )
        found = load.until("registered")
        registered = _cpu_s(self._process.pid)
        progress(f"{found['registered']} clients registered in {found['registered_s']} s")
        self.start_training(args.clients, args.selected)
        load.until("started")
        began, load_now = _cpu_s(self._process.pid), os.getloadavg()[0]
        measured = load.until("measured")
        cpu_s = _cpu_s(self._process.pid) - began
        count = measured["updates_per_s"] * args.seconds
        measured.pop("measured")
        rss = _rss_mb(self._process.pid)
        self.kill()  # under load: what was acknowledged before has to be there
        load.process.wait(END_S)
        return {
            "clients": found["registered"],
            "registered_per_s": round(args.clients / found["registered_s"]),
            "registered_cpu_ms": round(1e3 * (registered - before) / args.clients, 2),
            "selected": args.selected,
            "senders": args.senders,
            "seconds": args.seconds,
            **measured,
            "update_cpu_ms": round(1e3 * cpu_s / max(1.0, count), 2),
            "hub_processors": round(cpu_s / args.seconds, 2),
            "rss_peak_mb": rss,
            "load_during": round(max(load_now, os.getloadavg()[0]), 1),
            "acknowledged_file": str(path),
        }

    def lost(self, path: str) -> dict[str, Any]:
        """After the kill: which acknowledged updates are not in the database, or of a round that
        is over and not in the model that came of it."""
        told = msgspec.json.decode(Path(path).read_bytes(), type=list[tuple[str, int, str]])
        with contextlib.closing(sqlite3.connect(self.state / "hub.db")) as database:
            rows = database.execute(
                "SELECT u.client, u.seq, u.digest, r.closed FROM star_updates u"
                " JOIN star_rounds r ON r.round = u.round"
            ).fetchall()
            details = database.execute("SELECT details FROM star_models").fetchall()
        kept = {(client, seq, digest): closed for client, seq, digest, closed in rows}
        merged = {
            (part.client, part.seq, part.update)
            for (text,) in details
            for part in msgspec.json.decode(text, type=Details).merged
        }
        done = [name for name in told if kept.get(name) == RoundState.DONE]
        return {
            "acknowledged": len(told),
            "lost": sum(name not in kept for name in told),
            "merged": len(merged),
            "left_out": sum(name not in merged for name in done),
            "rounds": len(details) - 1,
        }

    def slow(self, count: int) -> dict[str, Any]:
        """Honest requests without slow connections and with them."""
        assert self._process is not None
        common = {"url": self.url, "ca": str(self.certificate), "token": self._token}
        pace = {"askers": ASKERS, "per_s": ASKED_PER_S, "seconds": CALM_S}
        tokens = [self._user(f"auditor{number}") for number in range(USERS)]
        load = _Load(self.folder, "calm", {**common, **pace, "tokens": tokens})
        before = load.until("phase")
        cpu = _cpu_s(self._process.pid)
        other = _Load(
            self.folder, "slow", {**common, "host": "127.0.0.1", "port": self.port, "count": count}
        )
        other.until("opening")
        load.go_on()
        during = load.until("phase")
        cpu = _cpu_s(self._process.pid) - cpu
        closed = other.until("closed_s")["closed_s"]
        load.go_on()
        for process in (load.process, other.process):
            process.wait(END_S)
        return {
            "slow_connections": count,
            "slow_closed_s_worst": max(closed.values()),
            "slow_closed_s": closed,
            "honest_per_s": ASKED_PER_S,
            "honest_p99_s_before": before["p99_s"],
            "honest_p99_s_during": during["p99_s"],
            "honest_p99_ratio": round(during["p99_s"] / before["p99_s"], 2),
            "honest_p50_s": [before["p50_s"], during["p50_s"]],
            "honest_refused": before["refused"] + during["refused"],
            "honest_cpu_s_during": round(cpu, 2),
        }


def _rss_mb(pid: int) -> float:
    """The most that was resident (VmHWM, proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1e3, 1)
    return 0.0


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:13]) / os.sysconf("SC_CLK_TCK")
