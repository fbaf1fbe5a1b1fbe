"""What somebody wants changed, and the unsigned policy that comes of it.

A proposal is made where no policy key is, at a hub for instance. It becomes a policy when an
operator signs it elsewhere; until then it is worth nothing to any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.fleet.documents import TRAINING, blocked, given, require_sense
from gossipfl.identity import parse_device_name, short_name
from gossipfl.messages import Count, Gate, Label, Policy, Privacy, Seconds, Stop
from gossipfl.objects import digest
from gossipfl.wire import decode, encode

Name = Annotated[str, Meta(min_length=4, max_length=64)]
Names = Annotated[list[Name], Meta(max_length=256)]
BundleId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
FORWARD, BACK = "forward", "back"


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to change; all else stays as in the newest policy, blocks and stops too.

    roll: "forward" makes what canaries try for all; "back" makes them follow the others again.
    canary: device ids, none to end a trial; canary_count: so many of the devices that are there.
    """

    roll: Annotated[str, Meta(pattern="^(forward|back)$")] | None = None
    bundle: BundleId | None = None
    run: Count | None = None
    n: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    attackers: Count | None = None
    rule: Label | None = None
    codec: Label | None = None
    sample: Count | None = None
    epochs: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    learning_rate: Annotated[float, Meta(gt=0.0, le=100.0)] | None = None
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] | None = None
    batch: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    stop: Stop | None = None
    privacy: Privacy | None = None
    canary: Names | None = None
    canary_count: Annotated[int, Meta(ge=1, le=256)] | None = None
    gate: Gate | None = None
    block: Names = []
    unblock: Names = []
    not_before: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A policy that is there already, and the digest of its object."""

    policy: Policy
    digest: bytes


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A bundle by its id, and the file that it lies in."""

    bundle: bytes
    object: bytes
    bytes: int


def propose(
    change: Change, before: Held, whole: Policy | None, bundle: BundleRef | None = None
) -> Policy:
    """The unsigned policy after `before`. `whole`: the newest that is for all. UserError GF701."""
    old = before.policy
    base = _rolled(change, old, whole)
    canary = base.canary if change.canary is None else devices(change.canary)
    if change.roll is not None:
        canary = []
    run = _run(change, base, old, whole, bundle)
    made = {
        "term": old.term,
        "version": old.version + 1,
        "prev": before.digest,
        "issued": 0,
        "not_before": change.not_before or 0,
        "canary": sorted(canary),
        "blocked": blocked(old, set(devices(change.block)), set(devices(change.unblock))),
        "run": run,
        "training": replace(base.training, **given(change, TRAINING)),
        **given(change, ("rule", "codec", "sample", "stop", "privacy", "gate")),
    }
    if bundle is not None:
        made |= {"bundle": bundle.bundle, "bundle_object": bundle.object}
        made["bundle_bytes"] = bundle.bytes
    policy = replace(base, **made)
    policy = replace(policy, **_counts(change, policy, base, whole))
    require_sense(policy)
    return policy


def _rolled(change: Change, old: Policy, whole: Policy | None) -> Policy:
    """What the rest is taken from."""
    if change.roll is None:
        return old
    if not old.canary:
        raise UserError("GF701", "no policy is on trial: nothing can be rolled either way")
    if change.roll == FORWARD:
        return old
    if whole is None:
        raise UserError("GF701", "there is no policy for all to go back to")
    return whole


def _run(
    change: Change, base: Policy, old: Policy, whole: Policy | None, bundle: BundleRef | None
) -> int:
    """Another bundle is another run, one that was never used."""
    if change.run is not None:
        return change.run
    if bundle is None or bundle.bundle == base.bundle:
        return base.run
    return max(old.run, whole.run if whole is not None else 0) + 1


def _counts(change: Change, policy: Policy, base: Policy, whole: Policy | None) -> dict[str, int]:
    """How many devices there are, and how many of them may lie: see `documents.next_policy`."""
    usual = whole or base
    if usual.canary and not policy.canary and None in (change.n, change.attackers):
        raise UserError("GF701", "no policy for all is known here: say n and attackers")
    n, attackers = usual.n, usual.attackers
    job = (policy.bundle, policy.run)
    if policy.canary and (whole is None or job != (whole.bundle, whole.run)):
        n, attackers = len(policy.canary), 0
    return {"n": n, "attackers": attackers, **given(change, ("n", "attackers"))}


def devices(names: Sequence[str]) -> list[bytes]:
    """The devices of these ids, as people see them or in hex. UserError GF100."""
    found = []
    for name in names:
        try:
            found.append(bytes.fromhex(name) if len(name) == 32 else parse_device_name(name))
        except ValueError as error:
            raise UserError("GF100", str(error)) from error
    return found


def pack_proposal(policy: Policy) -> bytes:
    """The bytes of an unsigned policy."""
    return encode(policy)


def open_proposal(data: bytes) -> Policy:
    """The inverse of `pack_proposal`. UserError GF702."""
    try:
        return decode(data, Policy, Limits().entry_bytes)
    except PeerError as error:
        raise UserError("GF702", f"not an unsigned policy: {error}") from error


def is_signed_form(policy: Policy, proposal: Policy) -> bool:
    """Does it say what was proposed? Only when it was signed is its own."""
    return replace(policy, issued=0) == replace(proposal, issued=0)


def differences(before: Policy, after: Policy) -> list[str]:
    """What is not the same, a line for each field, for people."""
    found = []
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new and name not in ("version", "prev", "issued"):
            found.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return found


def _shown(value: Any) -> str:
    match value:
        case bytes():
            return value.hex()[:16]
        case list():
            return ", ".join(short_name(item) for item in value) or "none"
        case msgspec.Struct():
            plain = msgspec.structs.asdict(value)
            given = [f"{k} {_within(v)}" for k, v in plain.items() if v is not None]
            return " ".join(given) or "none"
    return str(value)


def _within(value: Any) -> str:
    """A field of a field. Long ones by their digest: what counts is that they are not the same."""
    if isinstance(value, msgspec.Struct):
        return f"({_shown(value)})"
    text = str(value)
    if len(text) <= 64:
        return text
    return f"{text[:32]}... (digest {digest(text.encode()).hex()[:16]})"
