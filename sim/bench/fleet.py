"""Eight agents on one machine, rounds back to back, with TLS, signatures, nna and receipts.

The job that other systems were measured with: MLP 64-128-10 on 1,437 digits dealt out at random,
360 held out, batch 32, 20 rounds of one local epoch, SGD 0.1 without momentum.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gossipfl.bundle.archive import read_path
from gossipfl.errors import UserError
from gossipfl.messages import Training
from sim.bench.report import Figures, progress
from sim.demo.agents import ask, command, shipped_bundle
from sim.demo.places import Job, Place, free_ports, settle
from sim.demo.processes import Child, Children

BUNDLE = "digits-mlp"
TRAINING = Training(epochs=1, learning_rate=0.1, momentum=0.0)
WAIT_S = 120.0  # guess: far above what it takes
LOOK_S = 0.5  # seldom enough to cost the agents nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--devices", type=int, default=8, metavar="N")
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument(
        "--no-ride", action="store_true", help="fetch each update on its own, to compare"
    )


def run(args: Namespace) -> Figures:
    """Start them, wait until each has done its rounds, read what they measured."""
    job = Job(
        devices=args.devices,
        liars=0,
        assumed=1,
        rounds=args.rounds,
        seed=args.seed,
        training=TRAINING,
        pace="none",
        alpha=None,
        input_max=1.0,
    )
    with tempfile.TemporaryDirectory(prefix="gossipfl-bench-") as name, Children() as children:
        ports = free_ports(job.devices, progress)
        places = settle(job, Path(name), shipped_bundle(BUNDLE), ports)
        began = time.monotonic()
        agents: list[tuple[float, Place, Child]] = []
        for place in places:
            offset = time.monotonic() - began
            words = _no_ride(place) if args.no_ride else command(place)
            child = children.start(place.name, words, place.folder / "agent.log")
            agents.append((offset, place, child))
        statuses = _wait(agents)
        cpu_s = sum(child.cpu_s() for _, _, child in agents)
        offsets = [offset for offset, _, _ in agents]
    return measure(job, offsets, statuses, cpu_s)


def _no_ride(place: Place) -> list[str]:
    return ["-m", "sim.bench.agent", "--config", str(place.config), "--ride-bytes", "0"]


def _wait(agents: Sequence[tuple[float, Place, Child]]) -> list[Mapping[str, Any]]:
    """The status of every agent, once all have finished."""
    until = time.monotonic() + WAIT_S
    while True:
        time.sleep(LOOK_S)
        statuses = [ask(place) for _, place, _ in agents]
        done = [status for status in statuses if status is not None and status["finished"]]
        if len(done) == len(agents):
            return list(done)
        for _, place, child in agents:
            if not child.is_alive:
                raise UserError("GF107", f"{place.name}: {child.last_words()}")
        if time.monotonic() > until:
            rounds = [status["base_round"] if status else None for status in statuses]
            raise UserError("GF107", f"not done after {WAIT_S:g} s; rounds so far: {rounds}")


def measure(
    job: Job, offsets: Sequence[float], statuses: Sequence[Mapping[str, Any]], cpu_s: float
) -> dict[str, Any]:
    """The figures. `offsets`: when each process was started, in seconds after the first."""
    parameters = read_path(shipped_bundle(BUNDLE)).layout.count

    def instants(key: str) -> list[float]:
        return [o + s[key] for o, s in zip(offsets, statuses, strict=True)]

    ended = max(instants("seconds_to_last_round"))
    trained = min(instants("seconds_to_first_training"))
    sent = sum(s["bytes_sent"] for s in statuses)
    served = sum(s["updates_served"] for s in statuses)
    accuracies = [s["together_accuracy"] for s in statuses]
    rss = [s["rss_mb"] for s in statuses]
    count = len(statuses)
    return {
        "devices": count,
        "rounds": min(s["base_round"] for s in statuses),
        "parameters": parameters,
        "accuracy": round(sum(accuracies) / count, 4),
        "accuracy_worst": round(min(accuracies), 4),
        "seconds_to_first_round": round(max(instants("seconds_to_first_round")), 3),
        "seconds_per_round": round((ended - trained) / job.rounds, 4),
        "seconds_wall": round(ended, 2),
        "cpu_s": round(cpu_s, 2),
        "rss_mb_per_agent": round(max(rss), 1),
        "rss_mb_mean": round(sum(rss) / count, 1),
        "bytes_sent_per_node": sent // count,
        "updates_served_per_node": round(served / count, 1),
        "bytes_over_model_bytes": round(sent / (4 * parameters * served), 4) if served else None,
    }
