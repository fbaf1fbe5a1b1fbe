"""`gossipfl revoke DEVICE` shuts a device out; `gossipfl id` says which device a folder is."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.cli.fleet import add_fleet, find
from gossipfl.cli.output import Result
from gossipfl.cli.policy import add_socket, hand_over
from gossipfl.errors import UserError

NO_TLS_KEY = (
    "none of these issuers admitted it, so its TLS key is not named: devices that never met it go "
    "on answering it until its certificate ends; better revoke it with the issuer that admitted it"
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("revoke", help="shut a device out of the fleet for good")
    parser.add_argument("device", metavar="DEVICE", help="its id, as `status` and `id` show it")
    add_fleet(parser)
    parser.add_argument("--reason", required=True, help="for the fleet's record, in words")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: named by id")
    add_socket(parser)
    parser.set_defaults(handler=revoke)

    identity = subparsers.add_parser("id", help="the device id of a state folder")
    identity.add_argument("--state", type=Path, required=True, metavar="DIR")
    identity.set_defaults(handler=show_id)


def revoke(args: Namespace) -> Result:
    """A signed revocation in a file, and handed to an agent if one is named."""
    from gossipfl.fleet import documents, files
    from gossipfl.fleet.folders import all_issuers
    from gossipfl.fleet.tokens import Tokens
    from gossipfl.identity import device_name, parse_device_name, short_name

    try:
        device = parse_device_name(args.device)
    except ValueError as error:
        raise UserError("GF100", str(error)) from error
    issuer = find(args).official()
    if device == issuer.member.device:
        raise UserError("GF100", "an issuer cannot revoke itself", "use another issuer")
    now = int(time.time())
    # Which of the issuers at hand admitted it does not matter; that one knows its TLS key.
    tls = {
        key for found in all_issuers(args.fleet) for key in Tokens(found.tokens).tls_keys(device)
    }
    data = documents.revocation_object(device, args.reason, issuer, now, sorted(tls))
    output = args.output or Path(f"revocation-{short_name(device)}.gfr")
    files.write_file(output, data, files.PUBLIC_MODE)
    handed = hand_over(args.to, "revocation", data)
    shown = {
        "device": device_name(device),
        "reason": args.reason,
        "since": now,
        "tls_keys": len(tls),
        "file": str(output),
        "agent": handed,
    }
    spread = "handed to the agent, and it spreads from there" if args.to else "hand it to any agent"
    text = f"revoked {shown['device']}: {args.reason}\nwritten to {output}; {spread}"
    return Result(shown, text if tls else f"{text}\n{NO_TLS_KEY}")


def show_id(args: Namespace) -> Result:
    """Who this device is."""
    from gossipfl.fleet.device import load_identity
    from gossipfl.identity import device_name

    identity = load_identity(args.state)
    data = {
        "device": device_name(identity.member.device),
        "fleet": identity.member.fleet.hex(),
        "role": identity.member.role.value,
        "not_after": identity.member.not_after,
    }
    return Result(data, str(data["device"]))
