"""What the command itself costs: milliseconds as a person waits, and what it imports."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.errors import UserError
from gossipfl.messages import Training
from sim.bench.report import Figures, progress
from sim.demo.agents import ask, command, shipped_bundle
from sim.demo.places import Job, free_ports, settle
from sim.demo.processes import Children

HEAVY = ("numpy", "aiohttp", "onnxruntime")
START_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=20, metavar="N")


def run(args: Namespace) -> Figures:
    """`--help`, and `status` of an agent that runs beside it."""
    job = Job(devices=1, liars=0, rounds=1, seed=1, training=Training(), pace="lan", alpha=None)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="gossipfl-bench-") as name, Children() as children:
        place = settle(job, Path(name), shipped_bundle("digits-mlp"), free_ports(1, progress))[0]
        children.start(place.name, command(place), place.folder / "agent.log")
        until = time.monotonic() + START_S
        while ask(place) is None:
            if time.monotonic() > until:
                raise UserError("GF107", "the agent does not answer")
            time.sleep(0.1)
        status = ["status", "--config", str(place.config)]
        for label, words in (("help", ["--help"]), ("status", status)):
            times = [_time(words) for _ in range(args.runs)]
            figures[f"{label}_ms"] = round(statistics.median(times), 1)
            figures[f"{label}_ms_worst"] = round(max(times), 1)
            figures[f"{label}_imports"] = _imports(words)
    return figures


def _time(words: list[str]) -> float:
    """Milliseconds of one call, process start and end included."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "gossipfl", *words], stdout=subprocess.DEVNULL, check=True
    )
    return (time.perf_counter() - began) * 1000


def _imports(words: list[str]) -> list[str]:
    """Which of the heavy modules the call imported: none, if all is well."""
    script = (
        "import sys; from gossipfl.cli.main import run; run(sys.argv[1:]); "
        f"print('|'.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    return [name for name in done.stdout.splitlines()[-1].split("|") if name]
