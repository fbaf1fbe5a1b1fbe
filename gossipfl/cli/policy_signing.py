"""`gossipfl policy propose|sign|history`: a policy made in one place and signed in another.

A hub has no policy key. It writes down what is wanted; the operator signs it where the key is,
having read what it says, and gives it back.
"""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.hub_client import HubClient, add_hub
from gossipfl.cli.output import Result
from gossipfl.cli.policy_rollout import (
    add_wait,
    confirm,
    read_bounded,
    spread_text,
    wait_for_spread,
)
from gossipfl.cli.policy_words import describe, described_policy, policy_text
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.fleet.documents import OpenPolicy
    from gossipfl.fleet.proposals import BundleRef, Change
    from gossipfl.messages import Policy

CHANGES_BYTES_MAX = 64 * 1024
PROPOSAL = Path("policy.gfu")


def add_signing(verbs: Any) -> None:
    propose = verbs.add_parser("propose", help="an unsigned policy from what is to change")
    propose.add_argument(
        "changes", type=Path, metavar="CHANGES.json", help="the fields to change; - for stdin"
    )
    propose.add_argument(
        "--prev", type=Path, metavar="FILE", help="without a hub: the newest policy"
    )
    propose.add_argument(
        "--for-all", type=Path, metavar="FILE", help="if that is on trial: the newest for all"
    )
    propose.add_argument("--bundle", type=Path, metavar="X.gfl", help="another job")
    propose.add_argument("--note", default="", help="why, for who signs it")
    propose.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=f"default {PROPOSAL}, to be signed"
    )
    add_hub(propose)
    propose.set_defaults(handler=policy_propose)

    sign = verbs.add_parser("sign", help="sign a proposed policy, having read what it says")
    sign.add_argument("file", type=Path, metavar="FILE", help="the unsigned policy")
    sign.add_argument("--operator", type=Path, required=True, metavar="DIR", help="who signs")
    sign.add_argument(
        "--prev", type=Path, metavar="FILE", help="the policy before it; with --hub it is fetched"
    )
    sign.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: FILE.gfp")
    sign.add_argument("--yes", action="store_true", help="do not ask")
    sign.add_argument("--to", type=Path, metavar="SOCKET", help="hand it to a running agent")
    add_wait(sign)
    add_hub(sign)
    sign.set_defaults(handler=policy_sign)

    history = verbs.add_parser("history", help="the policies that a hub knows, newest first")
    add_hub(history, required=True)
    history.set_defaults(handler=policy_history)


# --- propose -----------------------------------------------------------------------------------


def policy_propose(args: Namespace) -> Result:
    """An unsigned policy in a file; with --hub it is on the hub's list too."""
    import msgspec

    from gossipfl.fleet import files, proposals

    raw = read_bounded(args.changes, CHANGES_BYTES_MAX)
    try:
        change = msgspec.json.decode(raw, type=proposals.Change)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError("GF701", f"{args.changes}: {error}") from error
    output = args.output or PROPOSAL
    if args.hub is None:
        data, number = _propose_here(args, change), None
    else:
        data, number = _propose_there(args, raw)
    policy = proposals.open_proposal(data)
    files.write_file(output, data, files.PUBLIC_MODE)
    described = described_policy(policy)
    shown = {"proposal": number, "file": str(output), "policy": described}
    before = f"--prev {args.prev}" if args.hub is None else f"--hub {args.hub}"
    text = f"{policy_text(described)}\nwritten to {output}; next: gossipfl policy sign {output}"
    return Result(shown, f"{text} --operator DIR {before}")


def _propose_here(args: Namespace, change: Change) -> bytes:
    from gossipfl.fleet import documents, files, proposals

    if args.prev is None:
        raise UserError("GF100", "without --hub, --prev names the newest policy")
    prev = documents.open_policy(files.read_file(args.prev))
    whole: Policy | None = prev.policy
    if prev.policy.canary:
        whole = (
            documents.open_policy(files.read_file(args.for_all)).policy if args.for_all else None
        )
    if change.canary_count is not None:
        raise UserError("GF701", "canary_count: only a hub knows who is there; name them in canary")
    before = proposals.Held(prev.policy, prev.digest)
    return proposals.pack_proposal(proposals.propose(change, before, whole, _bundle(args.bundle)))


def _bundle(path: Path | None) -> BundleRef | None:
    from gossipfl.bundle.archive import ARCHIVE_BYTES_MAX, read
    from gossipfl.fleet import files
    from gossipfl.fleet.proposals import BundleRef
    from gossipfl.objects import digest

    if path is None:
        return None
    data = files.read_file(path, ARCHIVE_BYTES_MAX)
    return BundleRef(read(data).id, digest(data), len(data))


def _propose_there(args: Namespace, raw: bytes) -> tuple[bytes, str]:
    """At the hub, which gets the bundle first."""
    import json

    from gossipfl.bundle.archive import ARCHIVE_BYTES_MAX
    from gossipfl.fleet import files

    hub = HubClient.login(args)
    wanted = json.loads(raw)
    if args.bundle is not None:
        data = files.read_file(args.bundle, ARCHIVE_BYTES_MAX)
        wanted["bundle"] = hub.send("/api/v1/training/bundle", data)["bundle"]
    made = hub.json("POST", "/api/v1/policy/proposals", {"change": wanted, "note": args.note})
    payload = hub.fetch(f"/api/v1/policy/proposals/{made['id']}/payload")
    return payload, str(made["id"])


# --- sign --------------------------------------------------------------------------------------


def policy_sign(args: Namespace) -> Result:
    """Sign what was read, write it, and hand it on: to an agent, to a hub, or to nobody."""
    import msgspec

    from gossipfl.cli.policy import hand_over
    from gossipfl.config import Limits
    from gossipfl.fleet import documents, files, proposals
    from gossipfl.fleet.folders import find_official

    official = find_official(args.operator)
    policy = proposals.open_proposal(files.read_file(args.file, Limits().entry_bytes))
    _require_ours(policy, official.member.fleet)
    prev = _before(args, policy)
    documents.require_sense(policy)
    said = policy_text(described_policy(policy))
    if prev is not None:
        lines = proposals.differences(prev.policy, policy) or ["nothing but its number"]
        said += "\nchanges:\n" + "\n".join(f"  {line}" for line in lines)
    confirm(f"{said}\nsign it?", yes=args.yes)
    signed = msgspec.structs.replace(policy, issued=int(time.time()))
    data = documents.policy_object(signed, official)
    output = args.output or args.file.with_suffix(".gfp")
    files.write_file(output, data, files.PUBLIC_MODE)
    shown = describe(documents.open_policy(data))
    handed = hand_over(args.to, "policy", data)
    spread = wait_for_spread(args, shown["digest"])
    issued = _issue_there(args, data) if args.hub else None
    shown |= {"file": str(output), "agent": handed, "spread": spread, "hub": issued}
    words = issued["words"] if issued else spread_text(spread)
    text = f"{said}\nsigned, written to {output}"
    return Result(shown, f"{text}\n{words}".rstrip())


def _before(args: Namespace, policy: Policy) -> OpenPolicy | None:
    """The policy that it follows, without which nobody sees what it changes. None: the first.

    A hub may hand it over: it has to have the very digest that the proposal names.
    """
    from gossipfl.fleet import documents, files

    if policy.prev is None:
        if policy.version != 1:
            raise UserError("GF701", f"it follows no policy, yet it has number {policy.version}")
        return None
    if args.prev is not None:
        data = files.read_file(args.prev)
    elif args.hub is not None:
        data = HubClient.login(args).fetch(f"/api/v1/policy/objects/{policy.prev.hex()}")
    else:
        hint = "`gossipfl policy history --hub` and GET /api/v1/policy/objects/DIGEST have it"
        raise UserError("GF100", "--prev names the policy before: it shows what changes", hint)
    prev = documents.open_policy(data)
    if (policy.prev, policy.version) != (prev.digest, prev.policy.version + 1):
        raise UserError("GF701", f"it does not follow {args.prev or 'what the hub has'}")
    return prev


def _require_ours(policy: Policy, fleet: bytes) -> None:
    if policy.fleet != fleet:
        raise UserError("GF701", "the proposal is for another fleet than this operator's")


def _issue_there(args: Namespace, data: bytes) -> dict[str, Any]:
    query = f"?wait_s={min(60.0, max(0.0, args.wait)):g}"
    if args.wait_for is not None:
        query += f"&k={args.wait_for}"
    found: dict[str, Any] = HubClient.login(args).send(f"/api/v1/policy/issue{query}", data)
    return found


# --- history -----------------------------------------------------------------------------------


def policy_history(args: Namespace) -> Result:
    """What a hub's node has taken in."""
    from gossipfl.fleet.pki import show_time

    found = HubClient.login(args).json("GET", "/api/v1/policy/history")["policies"]
    lines = [
        f"{p['term']}.{p['version']}  {p['digest'][:16]}  run {p['run']}  {p['rule']}  "
        f"{_whom(p)}  signed {show_time(p['issued'])}"
        for p in found
    ]
    return Result({"policies": found}, "\n".join(lines) or "none yet")


def _whom(policy: dict[str, Any]) -> str:
    count = len(policy["canary"])
    whom = f"{count} {'canary' if count == 1 else 'canaries'}" if count else "for all"
    return f"{whom}, {len(policy['blocked'])} blocked" if policy["blocked"] else whom
