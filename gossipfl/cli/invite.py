"""`gossipfl invite` and `gossipfl join`: one line lets devices in."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.cli.fleet import add_fleet, find
from gossipfl.cli.output import Result
from gossipfl.cli.times import seconds
from gossipfl.errors import UserError


def add_parser(subparsers: Any) -> None:
    invite_parser = subparsers.add_parser("invite", help="print a line with which devices may join")
    add_fleet(invite_parser)
    invite_parser.add_argument("--role", choices=("device", "hub"), default="device")
    invite_parser.add_argument("--uses", type=int, default=1, metavar="N", help="default 1")
    invite_parser.add_argument("--ttl", default="2h", metavar="TIME", help="as 90s, 30m, 2h, 7d")
    invite_parser.add_argument(
        "--host",
        metavar="HOST:PORT",
        help="where joiners find the issuer; default: as it last listened, or this machine",
    )
    invite_parser.add_argument(
        "--replaces",
        metavar="DEVICE",
        help="the joiner takes the place of this device",
    )
    invite_parser.set_defaults(handler=invite)

    join_parser = subparsers.add_parser("join", help="enrol this device with an invitation line")
    join_parser.add_argument(
        "line", metavar="LINE", help="gfl1:...; - reads it from stdin, @FILE from a file"
    )
    join_parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    join_parser.add_argument("--host", metavar="HOST:PORT", help="another address of the issuer")
    join_parser.add_argument(
        "--replace", action="store_true", help="give up the identity that is there for a new one"
    )
    join_parser.set_defaults(handler=join)


def invite(args: Namespace) -> Result:
    """A new token, as a line. The line is the secret: its text is the only place it appears."""
    from gossipfl.fleet.desk import Desk
    from gossipfl.fleet.invitation import parse_address, token_name
    from gossipfl.fleet.pki import show_time
    from gossipfl.fleet.tokens import Tokens
    from gossipfl.identity import parse_device_name
    from gossipfl.messages import Role

    folder = find(args)
    address = parse_address(args.host) if args.host else folder.advertised()
    try:
        replaces = parse_device_name(args.replaces) if args.replaces else None
    except ValueError as error:
        raise UserError("GF100", str(error)) from error
    ttl_s = seconds(args.ttl)
    now = int(time.time())
    desk = Desk(folder.load(), Tokens(folder.tokens))
    made = desk.invite(address, now, Role(args.role), args.uses, ttl_s, replaces)
    data = {
        "line": made.line(),
        "token": token_name(made.token),
        "role": args.role,
        "uses": args.uses,
        "not_after": now + ttl_s,
    }
    text = (
        f"{made.line()}\n\n"
        f"good for {args.uses} {args.role}{'s' if args.uses > 1 else ''} "
        f"until {show_time(now + ttl_s)}; keep it as secret as a password\n"
        f"on the device: gossipfl join LINE --state DIR"
    )
    return Result(data, text)


def join(args: Namespace) -> Result:
    """Enrol over the network and write the identity."""
    from gossipfl.fleet import client
    from gossipfl.fleet.invitation import parse_address
    from gossipfl.fleet.pki import show_time
    from gossipfl.identity import device_name

    address = parse_address(args.host) if args.host else None
    member = client.join(_line(args.line), args.state, args.replace, address).load().member
    data: dict[str, Any] = {
        "device": device_name(member.device),
        "fleet": member.fleet.hex(),
        "role": member.role.value,
        "not_after": member.not_after,
        "replaces": device_name(member.replaces) if member.replaces else None,
        "state": str(args.state),
    }
    text = (
        f"joined fleet {data['fleet'][:16]} as {data['role']} {data['device']}\n"
        f"its certificate is good until {show_time(member.not_after)}"
    )
    if member.replaces:
        text += f"\nit replaces {data['replaces']}; the old files are in {args.state / 'replaced'}"
    return Result(data, text)


def _line(given: str) -> str:
    """The invitation itself, kept out of the list of processes if it is read from a file."""
    from gossipfl.fleet.files import read_file
    from gossipfl.fleet.invitation import LINE_MAX

    if given == "-":
        return sys.stdin.readline(2 * LINE_MAX)
    if given.startswith("@"):
        return read_file(Path(given[1:])).decode("ascii", "replace")
    return given
