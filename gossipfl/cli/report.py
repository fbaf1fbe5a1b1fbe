"""`gossipfl report`: a hub's reports from its database, from an export, or from a running hub.

From an export or a bare database nobody's key is needed but the log's public one: the same
compliance report comes out, unsigned, and `--against` compares it with a signed one.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.audit_logs import HELP, OpenLog, fleet_of_log, with_log
from gossipfl.cli.output import Result
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from gossipfl.hub.reports.facts import Facts
    from gossipfl.hub.reports.formats import Report
    from gossipfl.hub.reports.history import History
    from gossipfl.hub.settings import HubSettings

WORDS = {
    "summary": "one page, with trends",
    "compliance": "what the log holds that supports GDPR, HIPAA, EU AI Act, NIST SP 800-226",
    "performance": "rounds, latency, staleness, bytes, accuracy over time",
    "cost": "traffic against raw upload, energy, what is saved; with formulas",
    "contribution": "what each device gave the others, under pseudonyms",
}
FORMATS = ("json", "csv", "html")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("report", help="a hub's reports")
    verbs = parser.add_subparsers(dest="report_verb", metavar="REPORT")
    for name, words in WORDS.items():
        one = verbs.add_parser(name, help=words)
        one.add_argument(
            "log", nargs="?", metavar="LOG", help=f"{HELP}; or https://... of a running hub"
        )
        one.add_argument(
            "--config", type=Path, metavar="FILE", help="a hub's hub.toml: its log, key and tariffs"
        )
        one.add_argument("--hub-key", type=Path, metavar="FILE", help="the log's key, for a LOG")
        one.add_argument(
            "--token-file", type=Path, metavar="FILE", help="a token, mode 0600, for a running hub"
        )
        one.add_argument("--ca", type=Path, metavar="FILE", help="whom its certificate is from")
        one.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: in words")
        one.add_argument("--format", choices=FORMATS, help="default: by the ending of FILE")
        if name == "compliance":
            _add_compliance(one)
        else:
            one.add_argument(
                "--update-bytes", type=int, metavar="N", help="of an update: an export has none"
            )
        one.set_defaults(handler=make)


def _add_compliance(parser: Any) -> None:
    parser.add_argument("--size", type=int, metavar="N", help="entries; default: all")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="a signed report that must say the same"
    )


def make(args: Namespace) -> Result:
    """The report in words, or written to a file."""
    if args.log is not None and args.log.startswith(("https://", "http://")):
        return _fetched(args)
    if (args.log is None) == (args.config is None):
        raise UserError("GF100", "name a LOG with its --hub-key, or a hub's --config")
    if args.config is not None:
        from gossipfl.hub.settings import load_settings

        settings = load_settings([args.config])
        if args.report_verb == "compliance":
            return _signed(args, settings)
        return _of_hub(args, settings)
    if args.hub_key is None:
        raise UserError("GF100", "a LOG needs --hub-key: `gossipfl audit key` prints it")
    return with_log(args.log, lambda log: _of_log(args, log))


# --- from the hub's own folder -------------------------------------------------------------------


def _with_office(settings: HubSettings, work: Any) -> Any:
    """`work(office)` on the hub's database, which may be in use."""
    import asyncio

    from gossipfl.audit.notes import log_key
    from gossipfl.audit.refused import AuditRefused
    from gossipfl.fleet.device import load_identity
    from gossipfl.hub.database import open_database
    from gossipfl.hub.hub import wall
    from gossipfl.hub.log.log import HubLog
    from gossipfl.hub.page.auditing import Forged
    from gossipfl.hub.reports.office import Office

    identity = load_identity(settings.hub.state)
    signer, fleet, holdout = identity.signer, identity.member.fleet, settings.holdout

    async def run() -> Any:
        database = await open_database(settings.dsn, password=settings.password)
        try:
            log = HubLog(database, log_key(signer.key_id))
            return await work(Office(database, log, signer, fleet, wall, holdout))
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except AuditRefused as error:
        raise UserError("GF903", str(error)) from error
    except Forged as error:
        raise UserError("GF803", str(error)) from error


def _signed(args: Namespace, settings: HubSettings) -> Result:
    """The compliance report, signed with the hub's key and noted in its log."""
    from gossipfl.audit.notes import log_key
    from gossipfl.cli.user import by_hand
    from gossipfl.fleet.device import load_identity
    from gossipfl.hub.reports.signing import check

    document = _with_office(settings, lambda office: office.compliance(args.size, by_hand()))
    key = log_key(load_identity(settings.hub.state).signer.key_id)
    found = check(document, key)
    if args.against is not None:
        return _compared(args, found.body)
    return _shown(args, found.report, document)


def _of_hub(args: Namespace, settings: HubSettings) -> Result:
    async def work(office: Any) -> Report:
        async with office.facts(settings.reports.tariffs) as facts:
            return _report(args.report_verb, _sized(args, facts))

    report = _with_office(settings, work)
    return _shown(args, report)


# --- from a log that somebody holds --------------------------------------------------------------


async def _of_log(args: Namespace, log: OpenLog) -> Result:
    from gossipfl.cli.audit import key_of
    from gossipfl.hub.page.auditing import Forged
    from gossipfl.hub.reports.compliance import ComplianceReport
    from gossipfl.hub.reports.history import History

    history = History(log.reader, key_of(args.hub_key))
    try:
        if args.report_verb != "compliance":
            await history.read()
            facts = await _facts(log, history)
            return _shown(args, _report(args.report_verb, _sized(args, facts)))
        await history.read(args.size)
        body = await history.compliance(await fleet_of_log(log))
    except Forged as error:
        raise UserError("GF803", str(error)) from error
    if args.against is not None:
        return _compared(args, body)
    import msgspec

    return _shown(args, msgspec.json.decode(body, type=ComplianceReport), body + b"\n")


async def _facts(log: OpenLog, history: History) -> Facts:
    """Of a log without its hub: devices are numbered as they come, unless its database is here."""
    from gossipfl.hub.reports.costs import Tariffs
    from gossipfl.hub.reports.facts import Facts, part_of
    from gossipfl.hub.reports.office import facts_of

    if log.database is not None:
        return await facts_of(log.database, history, Tariffs())
    checkpoint, _ = await history.checkpoint()
    tally = history.tally
    places = {d: n for n, d in enumerate(tally.parts, 1)}
    names = {d.device: f"device-{places.get(d.device, 0)}" for d in tally.devices()}
    return Facts(tally, part_of(tally, checkpoint), names)


def _sized(args: Namespace, facts: Facts) -> Facts:
    from dataclasses import replace

    if args.update_bytes is None:
        return facts
    if args.update_bytes < 1:
        raise UserError("GF100", "--update-bytes is 1 or more")
    return replace(facts, update_bytes=(args.update_bytes,))


def _compared(args: Namespace, body: bytes) -> Result:
    """Whether a report that somebody was given says what this log says."""
    from gossipfl.fleet import files
    from gossipfl.hub.reports.signing import DOCUMENT_BYTES_MAX, body_in

    given = files.read_file(args.against, DOCUMENT_BYTES_MAX)
    same = body_in(given) == body or given.strip() == body
    told = "the same" if same else "another report than this log gives"
    return Result({"same": same}, f"{args.against}: {told}", Exit.OK if same else Exit.NO)


def _report(name: str, facts: Facts) -> Report:
    from gossipfl.hub.reports.contribution import contribution
    from gossipfl.hub.reports.performance import performance
    from gossipfl.hub.reports.summary import summary
    from gossipfl.hub.reports.value import cost_report

    match name:
        case "performance":
            return performance(facts)
        case "cost":
            return cost_report(facts)
        case "contribution":
            return contribution(facts)
    return summary(facts)


# --- from a running hub --------------------------------------------------------------------------


def _fetched(args: Namespace) -> Result:
    """What the hub answers, written as it came."""
    from gossipfl.cli.hub_client import HubClient
    from gossipfl.fleet import files

    if args.output is None or args.token_file is None:
        raise UserError("GF100", "a running hub needs --token-file FILE and --output FILE")
    name = args.report_verb
    where = "/api/v1/compliance/report" if name == "compliance" else f"/api/v1/reports/{name}"
    size = getattr(args, "size", None)
    token = files.read_secret(args.token_file).decode().strip()
    query = f"?format={_format(args)}" + ("" if size is None else f"&size={size}")
    data = HubClient(args.log, args.ca, token).fetch(where + query)
    return _written(args, data, {"report": name})


# --- how it is told ------------------------------------------------------------------------------


def _format(args: Namespace) -> str:
    """As asked for, or by the ending of the file."""
    if args.format is not None:
        return str(args.format)
    ending = args.output.suffix.removeprefix(".").lower() if args.output is not None else ""
    return ending if ending in FORMATS else "json"


def _shown(args: Namespace, report: Report, document: bytes | None = None) -> Result:
    """`document`: what is written as JSON where that has to be these very bytes."""
    from gossipfl.hub.reports.formats import as_csv, as_json, as_text

    plain = as_json(report) if document is None else document
    if args.output is None:
        return Result(json.loads(plain), as_text(report))
    match _format(args):
        case "json":
            data = plain
        case "csv":
            data = as_csv(report)
        case _:
            from gossipfl.cli.hub import require_extra

            require_extra()
            from gossipfl.hub.reports.rendering import ReportRenderer

            data = ReportRenderer().alone(report).encode()
    return _written(args, data, {"report": report.report})


def _written(args: Namespace, data: bytes, shown: dict[str, Any]) -> Result:
    from gossipfl.fleet import files

    files.write_file(args.output, data, files.PUBLIC_MODE)
    told = {**shown, "file": str(args.output), "bytes": len(data)}
    return Result(told, f"written to {args.output}, {len(data)} bytes")
