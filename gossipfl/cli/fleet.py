"""`gossipfl fleet ...`: make a fleet, its operators and issuers; run an issuer; see its state."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, line, progress

if TYPE_CHECKING:
    from gossipfl.fleet.folders import FleetFolder, IssuerFolder, Official

LISTEN = "0.0.0.0:7443"  # every IPv4 address; the port is fleet.invitation.PORT


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("fleet", help="make a fleet, its operators and its issuer")
    verbs = parser.add_subparsers(dest="fleet_verb", metavar="VERB")

    init = verbs.add_parser("init", help="make the root, a first issuer and a first operator")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    init.add_argument("--name", default="", help="for people; it is in no certificate")
    init.set_defaults(handler=fleet_init)

    operator = verbs.add_parser("issue-operator", help="make another operator")
    add_fleet(operator)
    operator.add_argument("name", help="of the new folder in DIR/operators: a-z, 0-9 and -")
    operator.set_defaults(handler=issue_operator)

    issuer = verbs.add_parser("issue-issuer", help="make another issuer; needs the root key")
    issuer.add_argument("--fleet", type=Path, required=True, metavar="DIR")
    issuer.add_argument("name", help="of the new folder in DIR/issuers: a-z, 0-9 and -")
    issuer.add_argument("--root", type=Path, metavar="DIR", help="where the root key is kept")
    issuer.set_defaults(handler=issue_issuer)

    service = verbs.add_parser("issuer", help="the service that lets devices in")
    services = service.add_subparsers(dest="issuer_verb", metavar="VERB")
    run = services.add_parser("run", help="answer `gossipfl join` until stopped")
    add_fleet(run)
    run.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help=f"default {LISTEN}")
    run.set_defaults(handler=issuer_run)

    status = verbs.add_parser("status", help="issuers, operators, invitations, who has joined")
    add_fleet(status)
    status.set_defaults(handler=fleet_status)


def add_fleet(parser: Any) -> None:
    """The options that say which issuer a verb means."""
    parser.add_argument(
        "--fleet",
        type=Path,
        required=True,
        metavar="DIR",
        help="a fleet's folder, or the folder of one issuer",
    )
    parser.add_argument("--issuer", metavar="NAME", help="which, if the fleet has several")


def find(args: Namespace) -> IssuerFolder:
    """The issuer that --fleet and --issuer mean."""
    from gossipfl.fleet.folders import find_issuer

    folder: IssuerFolder = find_issuer(args.fleet, args.issuer)
    return folder


def fleet_init(args: Namespace) -> Result:
    """A new fleet folder."""
    from gossipfl.fleet.local import make_fleet

    fleet = make_fleet(args.folder, args.name)
    issuer, operator = fleet.issuer().official(), fleet.operator().load()
    data: dict[str, Any] = {
        "folder": str(fleet.path),
        "fleet": issuer.member.fleet.hex(),
        "issuer": _official("first", issuer),
        "operator": _official("first", operator),
    }
    text = "\n".join(
        [
            f"fleet {issuer.member.fleet.hex()[:16]} made in {fleet.path}",
            f"  issuer    {data['issuer']['device']}, to {_day(issuer)}",
            f"  operator  {data['operator']['device']}, to {_day(operator)}",
            f"Keep {fleet.path / 'root'} offline: it is needed only to make another issuer.",
            f"next: gossipfl fleet issuer run --fleet {fleet.path}",
            f"      gossipfl invite --fleet {fleet.path} --uses 20 --ttl 2h",
        ]
    )
    return Result(data, text)


def issue_operator(args: Namespace) -> Result:
    """Another operator, by an issuer of the fleet."""
    from gossipfl.fleet.folders import FleetFolder

    folder = FleetFolder(args.fleet).add_operator(args.name, _now(), args.issuer)
    official = folder.load()
    data = {"folder": str(folder.path), **_official(args.name, official)}
    return Result(data, f"operator {data['device']}, to {_day(official)}, in {folder.path}")


def issue_issuer(args: Namespace) -> Result:
    """Another issuer, by the root."""
    from gossipfl.fleet.folders import FleetFolder

    folder = FleetFolder(args.fleet).add_issuer(args.name, _now(), args.root)
    official = folder.official()
    data = {"folder": str(folder.path), **_official(args.name, official)}
    return Result(data, f"issuer {data['device']}, to {_day(official)}, in {folder.path}")


def issuer_run(args: Namespace) -> Result:
    """The enrolment service, until SIGINT or SIGTERM."""
    import asyncio
    import logging
    import sys

    from gossipfl.fleet.invitation import parse_address

    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(message)s")
    joined = asyncio.run(_serve(args, find(args), parse_address(args.listen)))
    return Result({"admitted": joined}, f"stopped; {joined} admitted in all")


async def _serve(args: Namespace, folder: IssuerFolder, listen: Any) -> int:
    import asyncio
    import signal

    from gossipfl.fleet.service import Service

    service = Service(folder)
    address = await service.start(listen.host, listen.port)
    folder.remember_address(address)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        if args.json:
            line({"listening": str(address), "fleet": service.desk.issuer.fleet.hex()})
        progress(args, f"letting devices in at {address}; Ctrl-C stops")
        await stop.wait()
    finally:
        await service.close()
    return len(service.desk.tokens.admissions())


def fleet_status(args: Namespace) -> Result:
    """What the folder knows; asks nobody."""
    from gossipfl.fleet.folders import FleetFolder

    folder = find(args)
    is_fleet = not (args.fleet / "issuer.key").exists()
    officials = _officials(FleetFolder(args.fleet)) if is_fleet else {}
    invitations, devices = _joined(folder)
    issuer = folder.official()
    data: dict[str, Any] = {
        "fleet": issuer.member.fleet.hex(),
        **officials,
        "issuer": _official(folder.path.name, issuer),
        "invitations": invitations,
        "devices": devices,
    }
    rows = [f"fleet {data['fleet'][:16]}"]
    for kind, entries in officials.items():
        rows += [f"  {kind[:-1]:<9} {e['name']:<12} {e['device']}" for e in entries]
    rows += [
        f"  invitation {i['token']}: {i['left']} of {i['uses']} left, {i['role']}, to {i['to']}"
        for i in invitations
    ]
    rows += [f"  {d['role']:<9} {d['device']} joined {d['joined']}" for d in devices]
    return Result(data, "\n".join(rows))


def _officials(fleet: FleetFolder) -> dict[str, list[dict[str, Any]]]:
    return {
        "issuers": [_official(n, fleet.issuer(n).official()) for n in fleet.names("issuers")],
        "operators": [_official(n, fleet.operator(n).load()) for n in fleet.names("operators")],
    }


def _joined(folder: IssuerFolder) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Invitations and admissions of one issuer, as JSON types."""
    from gossipfl.fleet.invitation import token_name
    from gossipfl.fleet.pki import show_time
    from gossipfl.fleet.tokens import Tokens
    from gossipfl.identity import device_name

    tokens = Tokens(folder.tokens)
    invitations = [
        {
            "token": token_name(token.id),
            "role": token.role.value,
            "uses": token.uses,
            "left": token.left,
            "to": show_time(token.not_after),
        }
        for token in tokens.tokens()
    ]
    devices = [
        {
            "device": device_name(admission.device),
            "role": admission.role.value,
            "token": token_name(admission.token),
            "joined": show_time(admission.issued),
            "replaces": device_name(admission.replaces) if admission.replaces else None,
        }
        for admission in tokens.admissions()
    ]
    return invitations, devices


def _official(name: str, official: Official) -> dict[str, Any]:
    from gossipfl.identity import device_name

    return {
        "name": name,
        "device": device_name(official.member.device),
        "not_after": official.member.not_after,
    }


def _day(official: Official) -> str:
    from gossipfl.fleet.pki import show_time

    return show_time(official.member.not_after)[:10]


def _now() -> int:
    import time

    return int(time.time())
