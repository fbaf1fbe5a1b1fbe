"""`gossipfl sim`: the code that ships, in a simulated network, in virtual time.

`run` plays one named history, `soak` plays random ones until their number or the time is used up.
"""

from __future__ import annotations

import dataclasses
import difflib
import time
from argparse import Namespace
from typing import Any

from gossipfl.cli.output import Result
from gossipfl.cli.soak import add_soak
from gossipfl.errors import Exit, UserError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("sim", help="run the same node code in a simulated network")
    words = parser.add_subparsers(dest="word", metavar="WORD")
    one = words.add_parser("run", help="play one named history")
    one.add_argument("name", nargs="?", help="without one, all names are listed")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(handler=run)
    add_soak(words)


def run(args: Namespace) -> Result:
    """One history and its figures. Exit 1 if an invariant broke or it got stuck."""
    from sim.scenarios import SCENARIOS
    from sim.world import WorldError

    if args.name is None:
        return Result({"names": sorted(SCENARIOS)}, "\n".join(sorted(SCENARIOS)))
    if args.name not in SCENARIOS:
        near = difflib.get_close_matches(args.name, SCENARIOS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`gossipfl sim run` lists the names"
        raise UserError("GF100", f"there is no scenario {args.name!r}", hint)
    started = time.monotonic()
    try:
        outcome = SCENARIOS[args.name](args.seed)
    except ImportError as error:
        if error.name != "sklearn":
            raise
        hint = "pip install 'gossipfl[demo]'"
        raise UserError("GF106", "scikit-learn, which has the digits, is missing", hint) from None
    except WorldError as error:
        data = {"scenario": args.name, "seed": args.seed, "failure": error.cause}
        return Result(data, str(error), Exit.NO)
    seconds = time.monotonic() - started
    data = {
        **dataclasses.asdict(outcome),
        "seconds": round(seconds, 2),
        "device_rounds_per_s": round(outcome.device_rounds / seconds, 1),
    }
    return Result(data, "\n".join(f"{name:<20} {value}" for name, value in data.items()))
