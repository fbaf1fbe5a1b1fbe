"""What an agent costs while it rests: job loaded, rounds done, polling its peers at LAN pace."""

from __future__ import annotations

import argparse
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from gossipfl.errors import UserError
from gossipfl.messages import Training
from sim.bench.report import Figures, progress
from sim.demo.agents import ask, command, shipped_bundle
from sim.demo.places import Job, Place, free_ports, settle
from sim.demo.processes import Child, Children

DEVICES = 4
START_S = 180.0  # a LAN round may take 20 s, and the first waits for peers
BUNDLE = "digits-mlp"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="to measure")


def run(args: Namespace) -> Figures:
    """Four agents do one round, then rest; the figures are the worst agent's."""
    job = Job(
        devices=DEVICES,
        liars=0,
        rounds=1,
        seed=1,
        training=Training(),
        pace="lan",
    )
    with tempfile.TemporaryDirectory(prefix="gossipfl-bench-") as name, Children() as children:
        ports = free_ports(DEVICES, progress)
        places = settle(job, Path(name), shipped_bundle(BUNDLE), ports)
        agents = [
            (place, children.start(place.name, command(place), place.folder / "agent.log"))
            for place in places
        ]
        progress(f"{DEVICES} agents at LAN pace do one round first (up to {START_S:g} s)")
        _rest(agents)
        progress(f"measuring for {args.seconds:g} s")
        return _measure(agents, args.seconds)


def _rest(agents: list[tuple[Place, Child]]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        time.sleep(1.0)
        statuses = [ask(place) for place, _ in agents]
        if all(status is not None and status["finished"] for status in statuses):
            return
    raise UserError("GF107", "the agents did not finish their round in time")


def _measure(agents: list[tuple[Place, Child]], seconds: float) -> dict[str, float]:
    before = [(child.cpu_s(), _sent(place)) for place, child in agents]
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    after = [(child.cpu_s(), _sent(place)) for place, child in agents]
    changes = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(before, after, strict=True)]
    return {
        "agents": len(agents),
        "seconds": round(passed, 1),
        "rss_mb": round(max(child.rss_mb() or 0.0 for _, child in agents), 1),
        "cpu_share": round(max(cpu for cpu, _ in changes) / passed, 5),
        "bytes_sent_per_hour": round(max(sent for _, sent in changes) / passed * 3600),
    }


def _sent(place: Place) -> int:
    status = ask(place)
    if status is None:
        raise UserError("GF107", f"{place.name} does not answer")
    return int(status["bytes_sent"])
