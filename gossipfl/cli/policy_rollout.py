"""Canaries, blocks and how far a policy has come: flags of `policy issue`, and the wait after."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.messages import Gate

WAIT_S = 30.0  # guess: fifteen polls of the lan preset
LOOK_S = 0.2


def add_rollout(issue: Any) -> None:
    """For whom the policy is, and whom it shuts out."""
    group = issue.add_argument_group(
        "canaries and blocks",
        "a policy for some devices only, which go back by themselves if its model is bad; and "
        "devices that nobody merges or answers, until a policy lifts that",
    )
    group.add_argument(
        "--canary",
        nargs="+",
        default=[],
        metavar="DEVICE",
        help="for these alone; of another job --n and --attackers are then those of the canaries, "
        "their number and 0",
    )
    group.add_argument(
        "--canary-rounds",
        type=int,
        metavar="N",
        help="rounds in a row that its model may be worse than the one before; default 10",
    )
    group.add_argument(
        "--canary-drop",
        type=float,
        metavar="X",
        help="of accuracy below the model before that counts as worse; default 0.2",
    )
    group.add_argument("--block", nargs="+", default=[], metavar="DEVICE")
    group.add_argument("--unblock", nargs="+", default=[], metavar="DEVICE")


def add_wait(parser: Any) -> None:
    parser.add_argument(
        "--wait-for",
        type=int,
        metavar="K",
        help="return when so many devices have it; default: assumed attackers + 2, or all",
    )
    parser.add_argument(
        "--wait", type=float, default=WAIT_S, metavar="S", help="at most so long; default 30"
    )


def gate_of(args: Namespace) -> Gate | None:
    """What the flags say, None if they say nothing. UserError GF100."""
    from gossipfl.messages import Gate

    rounds, drop = args.canary_rounds, args.canary_drop
    if rounds is None and drop is None:
        return None
    if not args.canary:
        raise UserError("GF100", "--canary-rounds and --canary-drop are for --canary")
    usual = Gate()
    return Gate(usual.rounds if rounds is None else rounds, usual.drop if drop is None else drop)


def wait_for_spread(args: Namespace, digest: str) -> dict[str, Any] | None:
    """Until enough devices' heads name the policy that was handed to `args.to`, or time is over:
    how many do. None without an agent to ask."""
    from device_agent.local_api import call

    if args.to is None:
        return None
    end = time.monotonic() + max(0.0, args.wait)
    while True:
        found: dict[str, Any] = call(args.to, "spread", digest=digest)
        if args.wait_for is not None:
            found["wanted"] = min(args.wait_for, found["live"])
        if found["named"] >= found["wanted"] or time.monotonic() >= end:
            return {key: found[key] for key in ("named", "live", "wanted")}
        time.sleep(LOOK_S)  # another process: nothing to wait on


def spread_text(found: dict[str, Any] | None) -> str:
    """One sentence on how far it has come."""
    if found is None:
        return ""
    if not found["live"]:
        return "nobody else answers now; it spreads as soon as others do"
    text = f"{found['named']} of {found['live']} other devices have it"
    if found["named"] >= found["wanted"]:
        return f"{text}; it goes on spreading by itself"
    return f"{text}, {found['wanted']} were waited for; it goes on spreading, `peers` shows who is"


def confirm(question: str, *, yes: bool) -> None:
    """Ask the person at the terminal. UserError GF100 without one, or if it is not wanted."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("GF100", "nobody is there to confirm it", "add --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("GF100", "not confirmed: nothing was signed")


def read_bounded(path: Path, most: int) -> bytes:
    """A file, or stdin for `-`. UserError GF211, GF215."""
    from gossipfl.fleet import files

    if str(path) != "-":
        return files.read_file(path, most)
    data = sys.stdin.buffer.read(most + 1)
    if len(data) > most:
        raise UserError("GF211", f"stdin has more than {most} bytes")
    return data
