"""`reputation show` and `quarantine list|release`: what a device holds against its peers.

All of it is the running agent's own view, asked over its local socket; nothing of it is gossiped.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from gossipfl.cli.device import add_where, settings_of
from gossipfl.cli.output import Result, palette
from gossipfl.errors import UserError

SHUT_OUT = ("quarantined", "condemned", "revoked")
SUMMARY = ("device", "state", "cause", "why", "reputation", "weight", "contribution")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "reputation", help="what this device thinks of its peers: scores, causes, contribution"
    )
    verbs = parser.add_subparsers(dest="reputation_verb", metavar="VERB")
    shown = verbs.add_parser("show", help="of all peers, or all that is known of one")
    shown.add_argument(
        "peer", nargs="?", metavar="PEER", help="its id, or how its id begins, as `peers` shows it"
    )
    add_where(shown)
    shown.set_defaults(handler=show)

    parser = subparsers.add_parser(
        "quarantine", help="who is shut out at this device, and letting one in again"
    )
    verbs = parser.add_subparsers(dest="quarantine_verb", metavar="VERB")
    listed = verbs.add_parser("list", help="who is shut out, why, and for how long")
    add_where(listed)
    listed.set_defaults(handler=list_)
    released = verbs.add_parser("release", help="let a peer in again before its time is over")
    released.add_argument("peer", metavar="PEER", help="its id, or how its id begins")
    add_where(released)
    released.set_defaults(handler=release)


def show(args: Namespace) -> Result:
    """The table of all peers, or everything about one."""
    from device_agent.reputation_text import peer_text, reputation_text

    peers = _peers(args)
    paint = palette(args).paint
    if args.peer is None:
        rows = [{key: peer[key] for key in SUMMARY} for peer in peers]
        return Result({"peers": rows}, reputation_text(peers, paint))
    peer = _find(peers, args.peer)
    return Result(peer, peer_text(peer, paint))


def list_(args: Namespace) -> Result:
    """Everybody who is not asked: in quarantine, condemned by proof, or revoked."""
    from device_agent.reputation_text import quarantine_text

    out = [peer for peer in _peers(args) if peer["state"] in SHUT_OUT]
    keys = (*SUMMARY[:4], "quarantine_left_s", "quarantines")
    return Result(
        {"peers": [{key: peer[key] for key in keys} for peer in out]},
        quarantine_text(out, palette(args).paint),
    )


def release(args: Namespace) -> Result:
    """Ends a quarantine. What is proven stays: only the fleet's issuer undoes that."""
    from device_agent.local_api import call

    peer = _find(_peers(args), args.peer)
    if peer["state"] != "quarantined":
        raise UserError("GF703", f"{peer['device'][:9]} is {peer['state']}: {_no_way_out(peer)}")
    found = call(settings_of(args).socket, "release", device=peer["device"])
    text = "; ".join(found["said"])
    return Result({"device": peer["device"], "said": found["said"]}, text)


def _no_way_out(peer: Mapping[str, Any]) -> str:
    match peer["state"]:
        case "condemned":
            return "what is proven is no matter of opinion, it has to be enrolled again"
        case "revoked":
            return "the fleet's issuer revoked it, it has to be enrolled again"
    return "there is nothing to release it from"


def _peers(args: Namespace) -> Sequence[Mapping[str, Any]]:
    from device_agent.local_api import call

    found: Sequence[Mapping[str, Any]] = call(settings_of(args).socket, "peers")["peers"]
    return found


def _find(peers: Sequence[Mapping[str, Any]], text: str) -> Mapping[str, Any]:
    """The one peer whose id begins so. UserError GF100 if there is none, or more than one."""
    wanted = text.strip().lower().replace("-", "")
    found = [peer for peer in peers if peer["device"].replace("-", "").startswith(wanted)]
    if not wanted or not found:
        raise UserError(
            "GF100", f"no peer's id begins with {text!r}", "`gossipfl peers` lists all ids"
        )
    if len(found) > 1:
        names = ", ".join(peer["device"][:14] for peer in found[:4])
        raise UserError("GF100", f"{text!r} may be {names}", "give more of the id")
    return found[0]
