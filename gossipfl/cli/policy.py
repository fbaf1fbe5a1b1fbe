"""`gossipfl policy issue|show`: the signed settings of a fleet. See also `policy_signing`."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result
from gossipfl.cli.policy_privacy import add_privacy, privacy_of
from gossipfl.cli.policy_rollout import add_rollout, add_wait, gate_of, spread_text, wait_for_spread
from gossipfl.cli.policy_signing import add_signing
from gossipfl.cli.policy_words import describe, policy_text
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.fleet.documents import Job
    from gossipfl.fleet.folders import Official
    from gossipfl.messages import Stop


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("policy", help="the signed settings of the fleet: show, issue")
    verbs = parser.add_subparsers(dest="policy_verb", metavar="VERB")

    issue = verbs.add_parser("issue", help="sign a policy: which job, how many devices, which rule")
    issue.add_argument(
        "--operator",
        type=Path,
        required=True,
        metavar="DIR",
        help="who signs: the folder of an operator (or of an issuer, to open a new term)",
    )
    issue.add_argument("--bundle", type=Path, required=True, metavar="X.gfl", help="the job")
    issue.add_argument("--n", type=int, required=True, metavar="N", help="devices in the fleet")
    issue.add_argument(
        "--attackers", type=int, required=True, metavar="N", help="of them assumed to be hostile"
    )
    issue.add_argument("--prev", type=Path, metavar="FILE", help="the policy that this one follows")
    issue.add_argument("--rule", metavar="NAME", help="default: collapse+nna")
    issue.add_argument(
        "--codec",
        metavar="NAME",
        help="how updates are written: f32 (the default), bf16, int8, partial:0.25+int8, each "
        "with +zlib if bytes are dear",
    )
    issue.add_argument("--sample", type=int, metavar="N", help="peers per round; default: exact")
    issue.add_argument("--run", type=int, metavar="N", help="a new number starts learning anew")
    issue.add_argument("--term", type=int, metavar="N", help="only an issuer opens a new one")
    issue.add_argument("--epochs", type=int, metavar="N", help="per round; default: the bundle's")
    issue.add_argument("--learning-rate", type=float, metavar="X", help="default: the bundle's")
    issue.add_argument("--momentum", type=float, metavar="X", help="default: the bundle's")
    issue.add_argument(
        "--batch", type=int, metavar="N", help="at most the bundle's, which is the default"
    )
    _add_stop(issue)
    add_privacy(issue)
    add_rollout(issue)
    issue.add_argument("-o", "--output", type=Path, metavar="FILE", help="default policy.gfp")
    add_socket(issue)
    add_wait(issue)
    issue.set_defaults(handler=policy_issue)

    show = verbs.add_parser("show", help="what a policy file says and who signed it")
    show.add_argument("file", type=Path, metavar="FILE")
    show.set_defaults(handler=policy_show)
    add_signing(verbs)


def _add_stop(issue: Any) -> None:
    """One flag for each field of `messages.Stop`; none is taken over from the policy before."""
    group = issue.add_argument_group(
        "when devices stop", "as soon as one of these holds; without any they go on for ever"
    )
    group.add_argument("--rounds", type=int, metavar="N", help="stop after so many; default: never")
    group.add_argument(
        "--stop-epochs", type=int, metavar="N", help="stop after so many local epochs"
    )
    group.add_argument(
        "--stop-bytes",
        type=int,
        metavar="N",
        help="stop after so much of updates, published and pulled",
    )
    group.add_argument(
        "--stop-distance",
        type=float,
        metavar="X",
        help="rest when models are within this share of the way that they have come, as 0.1",
    )
    group.add_argument(
        "--stop-slope",
        type=float,
        metavar="X",
        help="rest when that distance changes by less than this share in a round, as 0.05",
    )
    group.add_argument(
        "--stop-patience",
        type=int,
        metavar="N",
        help="rest when a device's own held-out figure has not improved for so many rounds",
    )
    group.add_argument(
        "--no-restart-on-data",
        action="store_true",
        help="new local data alone do not end a rest",
    )
    group.add_argument(
        "--restart-drift",
        type=float,
        metavar="NATS",
        help="end a rest when the loss of its model on local data has risen by this much",
    )
    group.add_argument(
        "--drift-checks",
        type=int,
        metavar="N",
        default=3,
        help="and has in so many checks in a row, one a round interval; default 3",
    )


def add_socket(parser: Any) -> None:
    parser.add_argument(
        "--to", type=Path, metavar="SOCKET", help="hand it to a running agent, as DIR/agent.sock"
    )


def policy_issue(args: Namespace) -> Result:
    """A signed policy object in a file, and handed to an agent if one is named."""
    from gossipfl.bundle.archive import ARCHIVE_BYTES_MAX, read
    from gossipfl.fleet import documents, files
    from gossipfl.fleet.folders import find_official
    from gossipfl.fleet.proposals import devices

    official = find_official(args.operator)
    output = args.output or Path("policy.gfp")
    if output.exists():  # two first policies would tie, and devices would follow either
        hint = f"follow it with --prev {output} -o another-name, or move it away"
        raise UserError("GF701", f"{output} is there already", hint)
    if args.bundle.is_dir():
        raise UserError("GF701", f"{args.bundle} is a folder: a policy names a .gfl file")
    content = files.read_file(args.bundle, ARCHIVE_BYTES_MAX)
    job = documents.Job.of(read(content), content)
    prev = documents.open_policy(files.read_file(args.prev)) if args.prev else None
    choices = documents.Choices(
        n=args.n,
        attackers=args.attackers,
        rule=args.rule,
        codec=args.codec,
        sample=args.sample,
        run=args.run,
        term=args.term,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        momentum=args.momentum,
        batch=args.batch,
        rounds=args.rounds,
        stop=_stop(args),
        privacy=privacy_of(args),
        canary=tuple(devices(args.canary)),
        gate=gate_of(args),
        block=frozenset(devices(args.block)),
        unblock=frozenset(devices(args.unblock)),
    )
    policy = documents.next_policy(job, choices, prev, official.member, int(time.time()))
    data = documents.policy_object(policy, official)
    files.write_file(output, data, files.PUBLIC_MODE)
    problem = _signature_problem(job, official)
    handed = _hand_both(args.to, args.bundle, data)
    shown = describe(documents.open_policy(data))
    spread = wait_for_spread(args, shown["digest"])
    shown |= {"file": str(output), "bundle_problem": problem, "agent": handed, "spread": spread}
    text = f"{policy_text(shown)}\nwritten to {output}"
    if (sums := shown["privacy"]["sums"]) is not None:
        text += f"\nmind: {sums['warning']}"
    if problem:
        text += f"\ndevices will refuse the bundle: {problem}; see `gossipfl bundle sign`"
    if handed and handed.get("bundle"):
        text += f"\nthe agent has the policy, but not the bundle: {handed['bundle']}"
    return Result(shown, f"{text}\n{spread_text(spread)}".rstrip())


def _stop(args: Namespace) -> Stop:
    from gossipfl.messages import Stop

    return Stop(
        epochs=args.stop_epochs,
        bytes=args.stop_bytes,
        distance=args.stop_distance,
        slope=args.stop_slope,
        patience=args.stop_patience,
        new_data=not args.no_restart_on_data,
        drift=args.restart_drift,
        drift_checks=args.drift_checks,
    )


def _signature_problem(job: Job, official: Official) -> str | None:
    """Why devices would not run this bundle, or None if an operator of the fleet signed it."""
    from device_agent.bundles.signers import operator_of
    from gossipfl.bundle import signing
    from gossipfl.bundle.refused import BundleRefused
    from gossipfl.config import Limits
    from gossipfl.membership import Roster

    try:
        signing.require_signature(job.bundle, operator_of(Roster(official.root_key, Limits())))
    except BundleRefused as error:
        return error.cause
    return None


def _hand_both(socket: Path | None, bundle: Path, policy: bytes) -> dict[str, Any] | None:
    """The bundle first, so that the agent need not ask peers for it. It may not be able to read
    the file; then "bundle" says why, and peers can still bring it.
    """
    if socket is None:
        return None
    from device_agent.local_api import call

    problem = None
    try:
        call(socket, "give-bundle", path=str(bundle.resolve()))
    except UserError as error:
        if error.code != "GF403":
            raise
        problem = error.cause
    return {**(hand_over(socket, "policy", policy) or {}), "bundle": problem}


def policy_show(args: Namespace) -> Result:
    """A policy file, verified within the fleet that it names."""
    from gossipfl.config import Limits
    from gossipfl.fleet import documents, files

    data = files.read_file(args.file, Limits().entry_bytes)
    shown = describe(documents.open_policy(data))
    return Result(shown, policy_text(shown))


def hand_over(socket: Path | None, verb: str, data: bytes) -> dict[str, Any] | None:
    """The object to the agent behind `socket`; what it answered, or None without a socket."""
    if socket is None:
        return None
    from base64 import b64encode

    from device_agent.local_api import call

    answer: dict[str, Any] = call(socket, verb, data=b64encode(data).decode())
    return answer
