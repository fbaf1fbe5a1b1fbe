"""`python -m sim.bench NAME`: what `script/bench` runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from gossipfl.errors import UserError
from sim.bench.report import envelope, progress, table

BENCHES = {
    "fleet": "eight agents on one machine, 20 rounds back to back: time, memory, bytes",
    "idle": "four agents that rest: memory, processor share and bytes over a minute",
    "mnist": "ten simulated devices, the convolutional bundle, 5,000 real digits, Dirichlet 1",
    "protocols": "dumbbell, two worlds and epidemic learning with our rules, MNIST digits",
    "codecs": "ms and bytes of each codec; --learn: accuracy against bytes, ten simulated devices",
    "reputation": "with reputation and without: what liars get, what they are called, false alarms",
    "accountant": "epsilon of random schedules beside dp-accounting's, which has to be installed",
    "privacy": "ms of noise for 10^6 values, and DP-SGD beside plain local training",
    "privacy-utility": "accuracy under privacy budgets: three jobs, both units, liars, break-even",
    "groups": "a group sum: processor time and bytes of one member and attempt (extra: groups)",
    "hub": "receipts a second; a killed hub with 10^6 entries; the API under load; slow clients",
    "sim": "the simulator: rounds and merges a second, growth with devices, 1,000 x 50 rounds",
    "cli": "what `gossipfl --help` and `gossipfl status` cost",
}


def main(argv: Sequence[str]) -> int:
    """One benchmark; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="script/bench", epilog="rules: each aggregation rule beside plain numpy"
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, text in BENCHES.items():
        sub = names.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="one JSON object as the last line")
        _module(name).add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        figures = _module(args.name).run(args)
    except UserError as error:
        progress(f"error {error.code}: {error.title}\n  why:  {error.cause}\n  next: {error.hint}")
        return int(error.exit)
    if args.json:
        progress(table(figures))
    sys.stdout.write(f"{envelope(figures) if args.json else table(figures)}\n")
    return 0


def _module(name: str) -> Any:
    return importlib.import_module(f"sim.bench.{name.replace('-', '_')}")


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.exit(main(sys.argv[1:]))
