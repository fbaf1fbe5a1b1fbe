"""`python -m sim.bench NAME`: what `script/bench` runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from gossipfl.cli import output
from gossipfl.errors import UserError

BENCHES = {
    "fleet": "eight agents on one machine, 20 rounds back to back: time, memory, bytes",
    "idle": "three agents that rest: memory, processor share and bytes over a minute",
    "cli": "what `gossipfl --help` and `gossipfl status` cost",
}


def main(argv: Sequence[str]) -> int:
    """One benchmark; returns its exit code."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.set_defaults(quiet=False, no_color=True)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, text in BENCHES.items():
        sub = names.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
        importlib.import_module(f"sim.bench.{name}").add_arguments(sub)
    args = parser.parse_args(argv)
    try:
        result: output.Result = importlib.import_module(f"sim.bench.{args.name}").run(args)
    except UserError as error:
        output.show_error(error, args)
        return int(error.exit)
    if args.json and result.text:
        output.progress(args, result.text)
    output.show(result, args)
    return int(result.exit)


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.exit(main(sys.argv[1:]))
