"""`gossipfl demo`: a fleet of real agents on this machine, one of which lies."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.cli.output import Result, palette
from gossipfl.errors import Exit, UserError

SEED = 2  # any does; this one's shards are as uneven as most


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="seven devices on this machine learn together; one of them lies",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Starts real agents as processes of this machine: own keys, port, data and state\n"
            "folder each, all below .gossipfl-demo. They find each other, train on handwritten\n"
            "digits, and merge. The liars send poisoned models. Ctrl-C stops everything."
        ),
    )
    parser.add_argument("--devices", type=int, default=7, metavar="N", help="all, liars included")
    parser.add_argument("--attackers", type=int, default=1, metavar="N", help="how many lie")
    parser.add_argument(
        "--attack", default="foe", metavar="NAME", help="what the liars do; `list` names them all"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        metavar="X",
        help="added to the lie: a share of the deviation of honest models",
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="until the summary")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="who has which digits")
    parser.add_argument(
        "--once", action="store_true", help="stop after the summary; exit 0 only if all went well"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".gossipfl-demo"), metavar="DIR", help="where it lives"
    )
    parser.add_argument(
        "--no-hub", action="store_true", help="without a hub, and so without an audit log"
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="only say where the hub's page is",
    )
    parser.set_defaults(handler=demo)


def demo(args: Namespace) -> Result:
    """Check the numbers, then let `sim.demo` do it."""
    if args.attack == "list":
        from gossipfl.cli.scenarios import attacks

        return attacks(args)
    _check(args)
    try:
        from sim.demo.show import Plan, show
        from sim.demo.summary import data, words
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        hint = "pip install 'gossipfl[demo]'"
        raise UserError("GF106", "scikit-learn, which has the digits, is missing", hint) from None
    once = args.once or args.json
    plan = Plan(
        devices=args.devices,
        liars=args.attackers,
        attack=args.attack.replace("-", "_"),
        noise=args.noise,
        rounds=args.rounds,
        seed=args.seed,
        folder=args.folder,
        once=once,
        hub=not args.no_hub,
        browser=not (args.no_browser or once) and _has_screen(),
    )
    outcome = show(plan, palette(args, sys.stderr).paint)
    text = words(outcome, palette(args).paint) if once else ""
    return Result(data(outcome), text, Exit.OK if outcome.is_good else Exit.NO)


def _has_screen() -> bool:
    """Whether a browser would open as a window; in a terminal it would be in the table's way."""
    return sys.stderr.isatty() and any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def _check(args: Namespace) -> None:
    """Raises UserError GF100 for numbers that make no fleet and for unknown attacks."""
    if not 0 <= args.attackers < args.devices / 3:
        raise UserError(
            "GF100",
            f"{args.attackers} liars among {args.devices} devices",
            "any rule needs more than three devices for each liar, as 7 for 1 or 2",
        )
    if not 4 <= args.devices <= 40 or not 1 <= args.rounds <= 1_000:
        raise UserError("GF100", "--devices is 4 to 40 and --rounds 1 to 1000")
    if not 0.0 <= args.noise <= 100.0:
        raise UserError("GF100", "--noise is 0 to 100")
    from sim.attacks import attack

    try:
        attack(args.attack.replace("-", "_"))
    except ValueError as error:
        hint = "`gossipfl demo --attack list` says what each does"
        raise UserError("GF100", str(error), hint) from None
